-- The rules of the log, shared by the internal and the public library: a Redis Function cannot
-- call another. Ids are kept as two numbers; both stay exact as doubles (below 2^53).

local PREFIX = '@PREFIX@'
local CODE = '@CODE@'
-- Used until a replica has said otherwise (and again after FLUSHALL, until the next heartbeat).
local DEFAULTS = { events_max = 10000, age_ms = 86400000, leap_ms = 2000, idem_ms = 600000, bytes_max = 65536, topics_max = 0 }
local SETTINGS = { 'events_max', 'age_ms', 'leap_ms', 'idem_ms', 'bytes_max', 'topics_max' }
local EXPIRY_SLACK_MS = 3600000
local SEAMS_MAX, LOSSES_MAX = 64, 64
-- Topics that one call looks at for those that are gone.
local SWEPT_AT_ONCE = 128
local EXACT = 2 ^ 53
-- Entries at the beginning of a log that are looked at for the first of ours.
local STRANGERS_MAX = 16

local function key(p, kind) return PREFIX .. ':{' .. p .. '}:' .. kind end
local function int(n) return string.format('%.0f', n) end
local function id_text(ms, seq) return int(ms) .. '-' .. int(seq) end
local function id_parse(text)
  local ms, seq = string.match(text or '', '^(%d+)-(%d+)$')
  return tonumber(ms or 0), tonumber(seq or 0)
end
local function less(a, b)
  local am, as = id_parse(a); local bm, bs = id_parse(b)
  return am < bm or (am == bm and as < bs)
end
-- Whether a text is an id as the gateway writes it; whoever reads it takes no other.
local function is_id(text)
  if not text then return false end
  local ms, seq = id_parse(text)
  return ms < EXACT and seq < EXACT and id_text(ms, seq) == text
end
-- The id of an entry, or, of one that cannot be ours, the first position above it.
local function position(text)
  local ms, seq = id_parse(text)
  if seq >= EXACT then return id_text(ms + 1, 0) end
  return id_text(ms, seq)
end
-- Pairs of ids, `a,b a,b`.
local function pairs_of(text)
  local list = {}
  for a, b in string.gmatch(text, '(%S+),(%S+)') do
    if is_id(a) and is_id(b) then list[#list + 1] = { a, b } end
  end
  return list
end
local function pairs_text(list)
  local texts = {}
  for i, pair in ipairs(list) do texts[i] = pair[1] .. ',' .. pair[2] end
  return table.concat(texts, ' ')
end
-- CRC16 (XMODEM), as Redis Cluster takes it of a key.
local function crc16(text)
  local crc = 0
  for i = 1, #text do
    crc = bit.bxor(crc, bit.lshift(string.byte(text, i), 8))
    for _ = 1, 8 do
      crc = bit.band(bit.band(crc, 32768) == 0 and bit.lshift(crc, 1) or bit.bxor(bit.lshift(crc, 1), 4129), 65535)
    end
  end
  return crc
end

-- The partition of a topic, among so many.
local function partition_of(topic, count) return int(count > 1 and crc16(topic) % count or 0) end

local function refuse(code, text) return redis.error_reply(code .. ' ' .. text) end

local function time_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Which process this is: asked once, it does not change while the process lives.
local run_id = nil
local function run()
  if not run_id then run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') end
  return run_id
end

-- The partition's clock and settings, nil where there is none yet; `opening` are topics that were
-- admitted and have no log yet.
local function clock(p)
  local c = redis.call('HMGET', key(p, 'clock'), 'last', 'run', 'born', 'seams', 'rules', 'before', 'losses', unpack(SETTINGS))
  local k = { p = p, run = c[2], rules = c[5] or '', opening = {}, opened = 0 }
  -- Each seam is `before,after`, each loss `from,told`: the last gap entry about it.
  k.seams, k.losses = pairs_of(c[4] or ''), pairs_of(c[7] or '')
  -- A clock that cannot be read is none.
  if is_id(c[1]) and is_id(c[3]) then k.last, k.born = c[1], c[3] end
  k.ms, k.seq = id_parse(k.last)
  local before_ms, before_age_ms = string.match(c[6] or '', '^(%d+) (%d+)$')
  k.before_ms, k.before_age_ms = tonumber(before_ms or 0), tonumber(before_age_ms or 0)
  for i, name in ipairs(SETTINGS) do k[name] = tonumber(c[7 + i] or nil) or DEFAULTS[name] end
  k.now = time_ms()
  return k
end

-- Whether a topic fits a pattern, in which each * stands for any text.
local function fits(pattern, topic)
  local star = string.find(pattern, '*', 1, true)
  if not star then return topic == pattern end
  if string.sub(topic, 1, star - 1) ~= string.sub(pattern, 1, star - 1) then return false end
  local at = star
  while true do
    local another = string.find(pattern, '*', star + 1, true)
    local piece = string.sub(pattern, star + 1, (another or 0) - 1)
    if not another then return #topic - at + 1 >= #piece and string.sub(topic, #topic - #piece + 1) == piece end
    local _, stop = string.find(topic, piece, at, true)
    if not stop then return false end
    star, at = another, stop + 1
  end
end

-- Rules for some topics, one a line: `EVENTS_MAX AGE_MS PATTERN`; no events for topics that are
-- not logged. A text is taken apart once, and kept until another one comes.
local rules_text, rules_list = '', {}
local function rules_of(text)
  if text ~= rules_text then
    rules_text, rules_list = text, {}
    for events_max, age_ms, pattern in string.gmatch(text, '(%d+) (%d+) ([^\n]+)') do
      rules_list[#rules_list + 1] = { events_max = tonumber(events_max), age_ms = tonumber(age_ms), pattern = pattern }
    end
  end
  return rules_list
end

-- What is kept of a topic: by the first rule that it fits, or else by the settings.
local function rule_of(k, topic)
  for _, rule in ipairs(rules_of(k.rules)) do
    if fits(rule.pattern, topic) then return rule end
  end
  return k
end

-- When a log expires whose last entry is of this millisecond: some time after that entry is too old.
local function expiry(ms, age_ms) return ms + age_ms + math.min(age_ms, EXPIRY_SLACK_MS) end

local function is_logged(k, topic) return rule_of(k, topic).events_max > 0 end

-- What is kept of a log. A topic may have one from the time when it was logged.
local function bounds(k, topic)
  local rule = rule_of(k, topic)
  return rule.events_max > 0 and rule or k
end

-- At a moment, events before this millisecond may have expired with their whole log. What is older
-- than the present ages was kept by the ages before.
local function oldest(k, topic, at)
  return math.max(0, at - bounds(k, topic).age_ms, math.min(k.before_ms, at - k.before_age_ms))
end

-- The first write of a process that did not write last leaves a seam: no id of a tail that this
-- process may have lost is ever given out again.
local function take_over(k)
  if k.last and k.run == run() then return end
  if not k.last then
    k.ms, k.seq, k.born, k.seams, k.losses = k.now, 0, id_text(k.now, 0), {}, {}
  else
    local after = id_text(math.max(k.now, k.ms) + k.leap_ms, 0)
    k.seams[#k.seams + 1] = { k.last, after }
    if #k.seams > SEAMS_MAX then table.remove(k.seams, 1) end
    k.ms, k.seq = id_parse(after)
  end
  k.last, k.run = id_text(k.ms, k.seq), run()
  redis.call('HSET', key(k.p, 'clock'), 'last', k.last, 'run', k.run, 'born', k.born,
    'seams', pairs_text(k.seams), 'losses', pairs_text(k.losses))
end

local function head(p, topic)
  local id, flag = string.match(redis.call('HGET', key(p, 'heads'), topic) or '', '^(%S+) ?(%S*)$')
  if is_id(id) then return id, flag end
end

-- Where a log begins that is not there. What it held may have expired; a head that is younger than that
-- is of a log that somebody deleted, or that Redis has evicted.
local function empty_floor(k, topic, at)
  local floor, last = id_text(oldest(k, topic, at), 0), head(k.p, topic)
  return last and less(floor, last) and not less(k.last or last, last) and last or floor
end

local function say(k, topic, id, prev, mark, kind, data)
  redis.call('PUBLISH', key(k.p, 'live:' .. topic), '1 ' .. id .. ' ' .. prev .. ' ' .. mark .. ' ' .. kind .. '\n' .. data)
end

local function next_id(k)
  if k.now > k.ms then return k.now, 1 end
  return k.ms, k.seq + 1
end

local function from_the_future(topic, what)
  return refuse('TGFOREIGN', 'the log of ' .. topic .. ' holds an entry from the future, ' .. what)
end

-- One entry: id, log and live frame; nil and a refusal, before anything else is written, if the log has
-- given out a greater id: somebody wrote it, and it need not stand there any more. `k` is the clock,
-- `extra` more fields of the entry.
local function append(k, topic, kind, data, mark, extra)
  take_over(k)
  local log, kept = key(k.p, 'log:' .. topic), bounds(k, topic)
  local ms, seq = next_id(k)
  local id, prev = id_text(ms, seq), nil
  local opens = redis.call('EXISTS', log) == 0
  if not opens then
    prev = head(k.p, topic)
    if not prev or not less(prev, id) then
      local entry = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
      prev = entry and position(entry[1])
    end
  end
  prev = prev or empty_floor(k, topic, ms)
  local added = redis.pcall('XADD', log, 'MAXLEN', '=', kept.events_max, id, 'prev', prev, 'type', kind, 'data', data, unpack(extra or {}))
  if type(added) == 'table' and added.err then
    if string.find(added.err, 'equal or smaller', 1, true) then return nil, from_the_future(topic, 'or did') end
    error(added)
  end
  k.ms, k.seq = ms, seq
  redis.call('XTRIM', log, 'MINID', '=', id_text(math.max(0, k.ms - kept.age_ms), 0))
  local expires = int(expiry(k.ms, kept.age_ms))
  redis.call('PEXPIREAT', log, expires)
  k.last = id
  redis.call('HSET', key(k.p, 'clock'), 'last', id)
  -- A loss that is written down opens nothing that has ended.
  local was_ended = not opens and select(2, head(k.p, topic)) == 'end'
  local ends = mark == 'x' or was_ended and string.sub(mark, 1, 1) == 'g'
  redis.call('HSET', key(k.p, 'heads'), topic, ends and id .. ' end' or id)
  -- A publisher that may not do this publishes all the same: the sweep lists its topics.
  if opens then
    redis.pcall('ZADD', key(k.p, 'topics'), 0, topic)
    redis.pcall('ZADD', key(k.p, 'expires'), expires, topic)
  end
  if k.opening[topic] then k.opening[topic], k.opened = nil, k.opened - 1 end
  say(k, topic, id, prev, mark, kind, data)
  return id
end

-- An event. On a topic that is not logged it is a live frame and nothing else: it has no id, and
-- the clock does not move.
local function event(k, topic, kind, data, last)
  if is_logged(k, topic) then return append(k, topic, kind, data, last and 'x' or 'e', last and { 'end', '1' }) end
  say(k, topic, '0-0', '0-0', 'u', kind, data)
  return ''
end

-- Well-formed UTF-8 as an automaton: a state is a table from byte to state. Runs of ASCII are skipped
-- by a pattern, which is quicker still.
local UTF8, BAD = {}, {}
do
  local one, two, three, e0, ed, f0, f4 = {}, {}, {}, {}, {}, {}, {}
  local states = { UTF8, BAD, one, two, three, e0, ed, f0, f4 }
  for i = 1, #states do
    for byte = 0, 255 do states[i][byte] = BAD end
  end
  local function leads(state, low, high, to)
    for byte = low, high do state[byte] = to end
  end
  leads(UTF8, 0, 127, UTF8); leads(UTF8, 194, 223, one); leads(UTF8, 225, 239, two); leads(UTF8, 241, 243, three)
  UTF8[224], UTF8[237], UTF8[240], UTF8[244] = e0, ed, f0, f4
  leads(one, 128, 191, UTF8); leads(two, 128, 191, one); leads(three, 128, 191, two)
  -- No overlong form, no surrogate, nothing above U+10FFFF.
  leads(e0, 160, 191, one); leads(ed, 128, 159, one); leads(f0, 144, 191, two); leads(f4, 128, 143, two)
end
local function is_utf8(s)
  local state, at = UTF8, 1
  while at <= #s do
    if state == UTF8 then
      local _, stop = string.find(s, '^[^\128-\255]*', at)
      at = stop + 1
    end
    for _ = 1, 8 do
      local a, b, c, d, e, f, g, h = string.byte(s, at, at + 7)
      if h then
        state, at = state[a][b][c][d][e][f][g][h], at + 8
      else
        while at <= #s do state, at = state[string.byte(s, at)], at + 1 end
      end
    end
    if state == BAD then return false end
  end
  return state == UTF8
end

local function topic_fault(topic)
  if #topic < 1 or #topic > 255 then return 'a topic has 1 to 255 bytes' end
  if string.find(topic, '[%c#*,]') or string.find(topic, '\194[\128-\159]') then return 'a topic has no control character and none of # * ,' end
  if string.sub(topic, 1, 9) == 'tidegate.' then return 'topics that begin with "tidegate." are the gateway\'s own' end
  if not is_utf8(topic) then return 'a topic is UTF-8' end
end

local function type_fault(kind)
  if #kind > 255 then return 'an event type has at most 255 bytes' end
  if string.find(kind, '[%z\r\n]') then return 'an event type has no line break and no NUL' end
  if string.sub(kind, 1, 9) == 'tidegate.' then return 'event types that begin with "tidegate." are the gateway\'s own' end
  if not is_utf8(kind) then return 'an event type is UTF-8' end
end

-- A call on a key that somebody else may have written: its reply, or nil and true if the key is of
-- another type.
local function try(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, true end
  error(reply)
end

-- The greatest id that a log has ever held, whether or not it stands there still; zero if this user may
-- not ask.
local function greatest(log)
  local told = redis.pcall('XINFO', 'STREAM', log)
  for i = 1, #told, 2 do
    if told[i] == 'last-generated-id' then return told[i + 1] end
  end
  return '0-0'
end

-- Forgets what is kept of topics beside their logs, once the logs are gone: looks at so many topics of those
-- whose time had come when they were noted, and notes the others anew. Whether there may be more.
local function sweep(k, many)
  local heads, topics, expires = key(k.p, 'heads'), key(k.p, 'topics'), key(k.p, 'expires')
  local due = redis.call('ZRANGEBYSCORE', expires, '-inf', int(k.now), 'LIMIT', 0, many)
  for _, topic in ipairs(due) do
    local at = redis.call('PEXPIRETIME', key(k.p, 'log:' .. topic))
    local last = at == -2 and head(k.p, topic)
    if at ~= -2 then
      -- One that never expires is not ours alone.
      redis.call('ZADD', expires, at == -1 and int(k.now + EXPIRY_SLACK_MS) or int(at), topic)
      redis.call('ZADD', topics, 0, topic)
    elseif last and less(id_text(oldest(k, topic, k.ms), 0), last) then
      -- Somebody has deleted its log, or Redis has evicted it: until it would have expired, that is told.
      local age_ms = bounds(k, topic).age_ms
      redis.call('ZADD', expires, int(math.max(k.now + 1000, expiry(id_parse(last), age_ms))), topic)
      redis.call('ZREM', topics, topic)
    else
      redis.call('HDEL', heads, topic)
      redis.call('HDEL', key(k.p, 'gaps'), topic)
      redis.call('ZREM', topics, topic)
      redis.call('ZREM', expires, topic)
    end
  end
  return #due == many
end

-- Why the log of a topic does not take an event now; nil if it does. One of `many` must be refused
-- before the first of them is written; one alone is refused by its log.
local function log_refusal(k, topic, many)
  local log = key(k.p, 'log:' .. topic)
  local above, foreign = try('XREVRANGE', log, '+', '(' .. (k.last or '0-0'), 'COUNT', 1)
  if foreign then return refuse('TGFOREIGN', 'the key of the log of ' .. topic .. ' holds something else') end
  -- The clock gave out no such id, and its own would not be taken after it.
  if above[1] and not less(above[1][1], id_text(next_id(k))) then
    return from_the_future(topic, above[1][1])
  end
  if redis.call('EXISTS', log) == 1 then
    if many and not less(greatest(log), id_text(next_id(k))) then return from_the_future(topic, 'or did') end
    local _, flag = head(k.p, topic)
    if flag == 'end' then return refuse('TGENDED', topic) end
  elseif k.topics_max > 0 and not k.opening[topic] then
    local function is_full() return redis.call('HLEN', key(k.p, 'heads')) + k.opened >= k.topics_max end
    -- The dead take no place. Who may not sweep waits until a replica has.
    if is_full() then pcall(sweep, k, SWEPT_AT_ONCE) end
    if is_full() then return refuse('TGTOPICS', int(k.topics_max)) end
    k.opening[topic], k.opened = true, k.opened + 1
  end
end

-- Why an event cannot be published now; nil if it can.
local function refusal(k, topic, kind, data, last, many)
  local fault = topic_fault(topic) or type_fault(kind) or (not is_utf8(data) and 'event data is UTF-8')
  if fault then return refuse('TGINVALID', fault) end
  if #data > k.bytes_max then return refuse('TGLARGE', int(k.bytes_max)) end
  if not is_logged(k, topic) then
    if last then return refuse('TGUNLOGGED', topic) end
  else
    local no = log_refusal(k, topic, many)
    if no then return no end
  end
  if not redis.acl_check_cmd('PUBLISH', key(k.p, 'live:' .. topic), '') then
    return refuse('NOPERM', 'this user may not PUBLISH to ' .. key(k.p, 'live:' .. topic))
  end
end

-- Topics and keys may have any colons: how long a topic with one is stands before it.
local function idem_key(item)
  local topic = string.find(item.topic, ':', 1, true) and ':' .. #item.topic .. ':' .. item.topic or item.topic
  return key(item.p, 'idem:' .. topic .. ':' .. item.key)
end

-- How long a key is remembered: no longer than the log of the event that it names.
local function idem_ms(k, topic)
  return is_logged(k, topic) and math.min(k.idem_ms, expiry(0, bounds(k, topic).age_ms)) or k.idem_ms
end

-- All of the batch, or nothing: what is refused is refused before the first write.
local function publish(items)
  local clocks, ends, known = {}, {}, {}
  for i, item in ipairs(items) do
    local foreign = false
    if item.key ~= '' then known[i], foreign = try('GET', idem_key(item)) end
    if foreign then return refuse('TGFOREIGN', 'an idempotency key of ' .. item.topic .. ' holds something else') end
    if not known[i] then
      clocks[item.p] = clocks[item.p] or clock(item.p)
      if ends[item.topic] then return refuse('TGENDED', item.topic) end
      -- What else the batch brings to this log comes above the first of it.
      local first_of_many = #items > 1 and ends[item.topic] == nil
      local no = refusal(clocks[item.p], item.topic, item.kind, item.data, item.last, first_of_many)
      if no then return no end
      ends[item.topic] = item.last
    end
  end
  local ids = {}
  for i, item in ipairs(items) do
    local id = known[i] or (item.key ~= '' and redis.call('GET', idem_key(item)))
    -- A repeat writes, too: WAIT asks for what its connection wrote last, and this event, written over
    -- another one, may be on no replica yet.
    if known[i] then redis.call('SET', idem_key(item), id, 'KEEPTTL') end
    if not id then
      local k = clocks[item.p]
      local no
      id, no = event(k, item.topic, item.kind, item.data, item.last)
      if not id then return no end
      if item.key ~= '' then redis.call('SET', idem_key(item), id, 'PX', int(idem_ms(k, item.topic))) end
    end
    ids[i] = id
  end
  return ids
end

-- The last event of a log says that it was deleted; the log itself expires.
local function delete(p, topic)
  local k, log = clock(p), key(p, 'log:' .. topic)
  if redis.call('TYPE', log).ok ~= 'stream' then return false end
  local id, no = append(k, topic, 'tidegate.deleted', cjson.encode({ topic = topic }), 'd')
  if not id then return no end
  redis.call('XTRIM', log, 'MAXLEN', '=', 1)
  return id
end
