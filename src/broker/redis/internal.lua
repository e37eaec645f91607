-- The internal functions: what replicas call. Those of another build live under another name.

local F = '@LIBRARY@_'

local function items_of(args, from)
  local items = {}
  for i = from, #args, 6 do
    items[#items + 1] =
      { p = args[i], topic = args[i + 1], kind = args[i + 2], data = args[i + 3], last = args[i + 4] == 'end', key = args[i + 5] }
  end
  return items
end

local function horizon(k)
  return { k.last, k.born, pairs_text(k.seams), int(math.max(k.now, k.ms)), run(), pairs_text(k.losses) }
end

-- Says which partitions have no clock yet.
local function no_clock(...) return refuse('TGNOCLOCK', table.concat({ ... }, ' ')) end

-- What an entry names as the previous one, if it can be one of ours.
local function prev_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local kind = fields.type and not string.find(fields.type, '[%z\r\n]')
  local ours = kind and fields.data and is_id(entry[1]) and is_id(fields.prev) and less(fields.prev, entry[1])
  return ours and fields.prev
end

-- What one call may cost Redis, so that no other client waits for long: about what it takes to copy so
-- many bytes out of a log. An entry and a topic cost something, too, however small they are.
local CALL_COST, ENTRY_COST, TOPIC_COST = 196608, 512, 1536
-- Entries that are taken out of a log at once, whatever their size.
local SLICE = 8

local function cost_of(entries)
  local cost, most = 0, 0
  for _, entry in ipairs(entries) do
    local size = ENTRY_COST
    for _, field in ipairs(entry[2] or {}) do size = size + #field end
    cost, most = cost + size, math.max(most, size)
  end
  return cost, most
end

-- Entries of a log one after the other, upwards or downwards, until `limit` or until they cost as much as
-- is left, but at least one. Also whether there may be more, and what is left then.
local function take(log, upwards, from, to, limit, left)
  local entries, most = {}, 1
  while #entries < limit do
    -- One, two, four: what has come tells how many more there is room for.
    local room = math.max(1, math.floor(left / most))
    local count = math.min(math.max(1, #entries), SLICE, room, limit - #entries)
    local got = try(upwards and 'XRANGE' or 'XREVRANGE', log, from, to, 'COUNT', count) or {}
    for _, entry in ipairs(got) do entries[#entries + 1] = entry end
    local cost, size = cost_of(got)
    left, most = left - cost, math.max(most, size)
    if #got < count then return entries, false, left end
    from = '(' .. got[#got][1]
    if left <= 0 then break end
  end
  return entries, true, left
end

-- Where a log begins, and how many entries stand there that are not ours; nil if it holds nothing,
-- whether the key is no log, and what it has cost to look. Our first entry knows what it follows. If
-- none is near, nothing is known of what was there up to the entries that are not ours: it may be missing.
local function floor_of(k, log)
  local from, floor, cost = '-', nil, 0
  for strangers = 0, STRANGERS_MAX - 1 do
    local got, foreign = try('XRANGE', log, from, k.last, 'COUNT', 1)
    if foreign then return nil, 0, true, cost end
    if not got[1] then return floor, strangers, false, cost end
    cost = cost + cost_of(got)
    local prev = prev_of(got[1])
    if prev then return prev, strangers, false, cost end
    from, floor = '(' .. got[1][1], position(got[1][1])
  end
  return floor, STRANGERS_MAX, false, cost
end

-- What is said of a topic whose key holds no log of ours.
local function no_log(k, topic, foreign)
  -- The gateway's own topics have none.
  local logged = is_logged(k, topic) and string.sub(topic, 1, 9) ~= 'tidegate.'
  local what = foreign and 'foreign' or logged and 'none' or 'unlogged'
  local floor = empty_floor(k, topic, math.max(k.now, k.ms))
  -- Ids above the last one are still to be given out, if the clock is put back.
  return { what, less(k.last, floor) and k.last or floor, '', '', {}, 0 }
end

-- Whether there is a log, and no more: its floor is not looked for.
local function state(k, topic)
  local length, foreign = try('XLEN', key(k.p, 'log:' .. topic))
  if not length or length == 0 then return no_log(k, topic, foreign) end
  local last, flag = head(k.p, topic)
  return { 'log', '0-0', flag == 'end' and last or '', '', {}, 0 }
end

-- How the log stands: log, none, unlogged or foreign; its floor, its end, up to where the page goes
-- if there is more, entries above `after`, until `limit` or until they cost as much as is left, and how
-- many at the floor are not ours. Above the clock there is nothing of ours. And what is left then.
local function page(k, topic, after, limit, left)
  local log = key(k.p, 'log:' .. topic)
  local floor, strangers, foreign, looked = floor_of(k, log)
  left = left - TOPIC_COST - looked
  if not floor then return no_log(k, topic, foreign), left end
  local last, flag = head(k.p, topic)
  local entries, more, rest = take(log, true, '(' .. after, k.last, limit, left)
  more = more and #redis.call('XRANGE', log, '(' .. entries[#entries][1], k.last, 'COUNT', 1) > 0
  return { 'log', floor, flag == 'end' and last or '', more and position(entries[#entries][1]) or '', entries, strangers }, rest
end

-- Whether an id that a replica has heard, and that must be in the log, is not.
local function lacks(k, topic, id)
  if less(k.last, id) then return true end
  local log = key(k.p, 'log:' .. topic)
  if redis.call('EXISTS', log) == 0 then return less(empty_floor(k, topic, k.ms), id) end
  local floor = floor_of(k, log)
  return less(floor or '0-0', id) and #redis.call('XRANGE', log, id, id) == 0
end

-- This process has left a seam itself that begins there.
local function note_leap(k, before)
  local leaps = { before }
  for known in string.gmatch(redis.call('HGET', key(k.p, 'clock'), 'leaps') or '', '%S+') do
    if #leaps < SEAMS_MAX then leaps[#leaps + 1] = known end
  end
  redis.call('HSET', key(k.p, 'clock'), 'leaps', table.concat(leaps, ' '))
end

-- Widens the newest seam so that it covers `id`. What was not given out up to there never will be.
local function leap_over(k, id)
  local ms, seq = id_parse(id)
  local beyond = id_text(ms, seq + 1)
  if less(k.last, id) then
    beyond = id_text(ms + 1, 0)
    k.last, k.ms, k.seq = beyond, ms + 1, 0
  end
  if #k.seams > 0 then
    k.seams[#k.seams][2] = beyond
  else
    k.seams[1] = { k.born, beyond }
    note_leap(k, k.born)
  end
  redis.call('HSET', key(k.p, 'clock'), 'last', k.last, 'seams', pairs_text(k.seams))
end

-- Where the newest seam begins, zero if there is none: with the birth and the process it names the clock.
local function newest_seam(k) return #k.seams > 0 and k.seams[#k.seams][1] or '0-0' end

-- The process that wrote last, in 64 bits of its run id.
local function run_name(k) return string.sub(k.run, 1, 16) end

-- Whether this id is above everything that the newest seam covers.
local function is_beyond_seams(k, id)
  return not less(id, #k.seams > 0 and k.seams[#k.seams][2] or k.born)
end

-- A new seam: something was lost above `before`, up to `id`, by a process that goes on.
local function leap_from(k, before, id)
  k.seams[#k.seams + 1] = { before, id }
  if #k.seams > SEAMS_MAX then table.remove(k.seams, 1) end
  note_leap(k, before)
  leap_over(k, id)
end

-- Whether a replica has followed the process that writes now. Seams that this process has left itself, as other parts
-- of the same report or other replicas had it do, change nothing of that.
local function is_followed(k, born, seam, name)
  if born ~= k.born or name ~= run_name(k) or seam == '' then return false end
  local leaps = ' ' .. (redis.call('HGET', key(k.p, 'clock'), 'leaps') or '') .. ' '
  for _, known in ipairs(k.seams) do
    if less(seam, known[1]) and not string.find(leaps, ' ' .. known[1] .. ' ', 1, true) then return false end
  end
  return true
end

-- After which entry of a topic an id stood that the log lacks.
local function before(k, topic, id)
  local log = key(k.p, 'log:' .. topic)
  local last = (try('XREVRANGE', log, '(' .. id, '-', 'COUNT', 1) or {})[1]
  return last and position(last[1]) or floor_of(k, log) or empty_floor(k, topic, k.ms)
end

-- Where the seam begins that an id lies in.
local function seam_around(k, id)
  for _, seam in ipairs(k.seams) do
    if less(seam[1], id) and less(id, seam[2]) then return seam[1] end
  end
end

-- From where on the log was written by processes that a replica did not follow, which knew a clock
-- born at `born`, and `seam` as the beginning of its newest seam.
local function unfollowed_since(k, born, seam)
  if born ~= '' and born ~= k.born then return k.born end
  if seam == '' then return end
  for _, known in ipairs(k.seams) do
    if less(seam, known[1]) then return known[1] end
  end
end

local function is_stream(log)
  local kindof = redis.call('TYPE', log).ok
  return kindof == 'stream', kindof == 'none'
end

-- Whether the log has, or had, an entry above `since` and at or below `heard`.
local function has_between(k, log, since, heard)
  if not less(since, heard) then return false end
  if #redis.call('XRANGE', log, '(' .. since, heard, 'COUNT', 1) > 0 then return true end
  local floor = floor_of(k, log)
  return floor and less(since, floor)
end

-- Gaps of a topic that are written down, the newest last. Those of a log that is gone count for nothing.
local GAPS_MAX = 8
local function known_gaps(k, topic)
  return pairs_of(redis.call('HGET', key(k.p, 'gaps'), topic) or '')
end

-- A stretch of a topic was lost: above `from`, up to `lost`.
local function write_gap(k, topic, from, lost)
  local gaps = redis.call('EXISTS', key(k.p, 'log:' .. topic)) == 1 and known_gaps(k, topic) or {}
  for _, gap in ipairs(gaps) do
    if not less(from, gap[1]) and not less(gap[2], lost) then return end
  end
  local span = from .. ',' .. lost
  local id = append(k, topic, 'tidegate.gap', '', 'g' .. span, { 'gap', span })
  -- A log that takes no entry keeps no other topic from being told.
  if not id then return end
  gaps[#gaps + 1] = { from, lost }
  if #gaps > GAPS_MAX then table.remove(gaps, 1) end
  redis.call('HSET', key(k.p, 'gaps'), topic, pairs_text(gaps))
  for i, loss in ipairs(k.losses) do
    if loss[1] == from then table.remove(k.losses, i); break end
  end
  k.losses[#k.losses + 1] = { from, id }
  if #k.losses > LOSSES_MAX then table.remove(k.losses, 1) end
  redis.call('HSET', key(k.p, 'clock'), 'losses', pairs_text(k.losses))
end

-- After what an entry that was heard of this very process stood, if the log lacks it. In a seam it was lost by a
-- process before this one.
local function missing_after(k, topic, id)
  if less(k.born, id) and not seam_around(k, id) and lacks(k, topic, id) then return before(k, topic, id) end
end

local function has(log, id) return #redis.call('XRANGE', log, id, id) > 0 end

-- What a replica knew of one topic: `id` last, which is `missing` after the other if its own process has lost it.
-- Of the reporter: it followed a clock up to `heard`, and nothing
-- at or below `passed` is shown there any more, although `since` the log was written by processes that it
-- did not follow; `is_known` if it has followed the one that writes now.
local function report(k, topic, id, missing, reporter)
  local log, heard, passed, since = key(k.p, 'log:' .. topic), reporter.heard, reporter.passed, reporter.since
  local exists, free = is_stream(log)
  if not exists and not free then return end
  -- It has expired, and whoever comes is told that. Whoever reads already may have passed it untold if that
  -- was a moment ago.
  local long_ago = id_text(math.max(0, oldest(k, topic, k.ms) - EXPIRY_SLACK_MS), 0)
  if not exists and not less(long_ago, id) then return end
  -- What this very log has was heard before it was told, and is read like everything else.
  local lost = since and less(since, id) and not has(log, id)
  if lost and less(passed, id) then return write_gap(k, topic, since, id) end
  local from = since or seam_around(k, heard)
  if less(heard, passed) and not (from and less(from, heard)) then from = heard end
  if from and has_between(k, log, from, passed) then
    write_gap(k, topic, from, passed)
    if not less(passed, id) then return end
  end
  if lost then return write_gap(k, topic, since, id) end
  -- Its ids are not given out again anyway, and other topics may have entries there.
  if missing then return write_gap(k, topic, missing, id) end
  if not reporter.is_known and is_beyond_seams(k, id) and lacks(k, topic, id) then leap_over(k, id) end
  from = seam_around(k, id)
  -- A process that has lost only some of its logs has entries there.
  if from and not has(log, id) then write_gap(k, topic, from, id) end
end

-- Notes some topics that are not noted, as earlier builds and publishers with fewer rights leave them, and
-- forgets names of the list that are no topic's. What else stands in the place of either makes room. True if it has not
-- come to the end of both.
local function note_some(k, heads_max, names_max)
  local p, heads, topics, expires = k.p, key(k.p, 'heads'), key(k.p, 'topics'), key(k.p, 'expires')
  for _, name in ipairs({ topics, expires }) do
    local kindof = redis.call('TYPE', name).ok
    if kindof ~= 'zset' and kindof ~= 'none' then redis.call('DEL', name) end
  end
  local clock_key = key(p, 'clock')
  local found = redis.call('HSCAN', heads, redis.call('HGET', clock_key, 'sweep') or '0', 'COUNT', heads_max)
  redis.call('HSET', clock_key, 'sweep', found[1])
  for i = 1, #found[2], 2 do
    -- A log may have gone before its time, by hand or by eviction.
    local is_there = redis.call('EXISTS', key(p, 'log:' .. found[2][i])) == 1
    redis.call('ZADD', expires, is_there and 'NX' or 'LT', int(k.now), found[2][i])
    if is_there then redis.call('ZADD', topics, 0, found[2][i]) end
  end
  local listed = redis.call('ZSCAN', topics, redis.call('HGET', clock_key, 'listed') or '0', 'COUNT', names_max)
  redis.call('HSET', clock_key, 'listed', listed[1])
  for i = 1, #listed[2], 2 do
    local name, score = listed[2][i], listed[2][i + 1]
    redis.call('ZADD', expires, 'NX', int(k.now), name)
    if score ~= '0' then redis.call('ZADD', topics, 0, name) end
  end
  return found[1] ~= '0' or listed[1] ~= '0'
end

-- (p topic type data end key)*  ->  ids, empty where the topic is not logged
redis.register_function(F .. 'publish', function(_, a) return publish(items_of(a, 1)) end)

-- p topic  ->  id, or nil if there was no log
redis.register_function({ function_name = F .. 'delete', flags = { 'allow-oom' }, callback = function(_, a) return delete(a[1], a[2]) end })

-- p (topic after limit)*  ->  last born seams now run losses, then a page each: state floor ended
-- cut entries strangers. Pages for which the call has no room any more are `later`; the first is none
-- of them.
redis.register_function({ function_name = F .. 'read', flags = { 'no-writes' }, callback = function(_, a)
  local k, left = clock(a[1]), CALL_COST
  if not k.last then return no_clock(a[1]) end
  local reply = horizon(k)
  for i = 2, #a, 3 do
    local topic, limit, got = a[i], tonumber(a[i + 2]), nil
    if limit == 0 then got = state(k, topic)
    elseif left <= 0 then got = { 'later' }
    else got, left = page(k, topic, a[i + 1], limit, left) end
    reply[#reply + 1] = got
  end
  return reply
end })

-- up|down ms (p topic from limit)*  ->  for each topic the last id of its clock, from where to go on if
-- there may be more, and ids; fewer topics if the call has no room for more, but at least one. Upwards,
-- these are the first ids after `from`, and not older than `ms` milliseconds if that is not empty;
-- downwards the last ones before `from`. An empty `from` is the end at which it begins.
redis.register_function({ function_name = F .. 'ids', flags = { 'no-writes' }, callback = function(_, a)
  local upwards, ms, clocks, reply, left = a[1] == 'up', tonumber(a[2] ~= '' and a[2] or nil), {}, {}, CALL_COST
  for i = 3, #a, 4 do
    local p, log, from, limit = a[i], key(a[i], 'log:' .. a[i + 1]), a[i + 2], tonumber(a[i + 3])
    clocks[p] = clocks[p] or clock(p)
    local k, ids = clocks[p], {}
    if not k.last then return no_clock(p) end
    if from == '' then
      from = upwards and '-' or k.last
      if upwards and ms then from = '(' .. id_text(math.max(0, math.max(k.now, k.ms) - ms), 0) end
    else
      from = '(' .. from
    end
    local entries, more, rest = take(log, upwards, from, upwards and k.last or '-', limit, left - TOPIC_COST)
    for _, entry in ipairs(entries) do ids[#ids + 1] = position(entry[1]) end
    reply[#reply + 1] = { k.last, more and entries[#entries][1] or '', ids }
    left = rest
    if left <= 0 then break end
  end
  return reply
end })

-- What decides how old an event may become, and the least of it.
local function ages(age_ms, rules)
  local all, least = { int(age_ms) }, age_ms
  for _, rule in ipairs(rules) do
    all[#all + 1] = int(rule.age_ms) .. ' ' .. rule.pattern
    if rule.events_max > 0 then least = math.min(least, rule.age_ms) end
  end
  return table.concat(all, '\n'), least
end

-- p settings* rules  ->  run: creates the clock, and says how this partition is kept. With other ages,
-- it is noted until when logs may have been kept for a shorter time.
redis.register_function({ function_name = F .. 'configure', flags = { 'allow-oom' }, callback = function(_, a)
  local k, fields, rules = clock(a[1]), {}, a[#SETTINGS + 2]
  for i, name in ipairs(SETTINGS) do fields[#fields + 1] = name; fields[#fields + 1] = a[i + 1] end
  fields[#fields + 1] = 'rules'; fields[#fields + 1] = rules
  local known, least = ages(k.age_ms, rules_of(k.rules))
  if k.last and known ~= ages(tonumber(a[3]), rules_of(rules)) then
    if k.before_ms > 0 then least = math.min(least, k.before_age_ms) end
    fields[#fields + 1] = 'before'; fields[#fields + 1] = int(math.max(k.now, k.ms) + 1) .. ' ' .. int(least)
  end
  redis.call('HSET', key(k.p, 'clock'), unpack(fields))
  if not k.last then take_over(k) end
  return run()
end })

-- p  ->  last and whether the settings are there: the clock said aloud on the live connection
redis.register_function({ function_name = F .. 'tick', flags = { 'allow-oom' }, callback = function(_, a)
  local k = clock(a[1])
  take_over(k)
  if k.now > k.ms then k.ms, k.seq = k.now, 0 end
  k.last = id_text(k.ms, k.seq)
  redis.call('HSET', key(k.p, 'clock'), 'last', k.last)
  -- What stands in the way there is not in the way of the clock.
  pcall(sweep, k, 64)
  redis.call('PUBLISH', key(k.p, 'tick'), k.last .. ' ' .. k.born .. ' ' .. newest_seam(k) .. ' ' .. run_name(k))
  -- As earlier builds say and read it.
  redis.call('PUBLISH', key(k.p, 'tick'), k.last)
  return { k.last, redis.call('HEXISTS', key(k.p, 'clock'), 'age_ms') }
end })

-- A replica believes no frame that is a minute ahead of what this server answered. What is ahead by more than this of
-- both its time and its clock comes from one whose log was lost while the time went back, or from somebody who
-- would move the clock for good.
local REPORT_AHEAD_MS = 3600000

-- p heard born seam run known (topic id)*: how far a replica followed the clock, which clock that was (born
-- then, its newest seam beginning there, of that process; empty if it never knew), the newest id that it
-- knows of whatever log, and which id of each topic it knew last  ->  born seam run: which clock was told
redis.register_function({ function_name = F .. 'report', flags = { 'allow-oom' }, callback = function(_, a)
  local k, known = clock(a[1]), less(a[2], a[6]) and a[6] or a[2]
  -- It may have heard more than it followed. Nothing of that is given out again.
  for i = 8, #a, 2 do if less(known, a[i]) then known = a[i] end end
  if id_parse(known) > math.max(k.now, k.ms) + REPORT_AHEAD_MS then
    redis.log(redis.LOG_WARNING, 'tidegate: a report of ' .. known .. ', far ahead of the log, is not believed')
    return refuse('TGAHEAD', known)
  end
  take_over(k)
  local is_known = is_followed(k, a[3], a[4], a[5])
  local reporter = {
    heard = a[2], passed = a[6], since = not is_known and unfollowed_since(k, a[3], a[4]) or nil, is_known = is_known,
  }
  -- Before anything leaps: what this very process has lost shows by what it lacks now.
  local missing = {}
  for i = 7, reporter.is_known and #a or 0, 2 do missing[i] = missing_after(k, a[i], a[i + 1]) end
  if reporter.is_known then
    -- It has followed this very process. Only if that has lost its tail it knows more.
    if less(k.last, known) then leap_from(k, k.last, known) end
  else
    if is_beyond_seams(k, reporter.heard) then leap_over(k, reporter.heard) end
    if less(k.last, known) then leap_over(k, known) end
  end
  for i = 7, #a, 2 do report(k, a[i], a[i + 1], missing[i], reporter) end
  return { k.born, newest_seam(k), run_name(k) }
end })

-- p after limit  ->  up to where the list was looked through, empty for its end, then topics that have a
-- log. It looks at `limit` names at most; some have no log any more.
redis.register_function({ function_name = F .. 'topics', flags = { 'no-writes' }, callback = function(_, a)
  local p, from, limit = a[1], a[2] == '' and '-' or '(' .. a[2], tonumber(a[3])
  local names = try('ZRANGEBYLEX', key(p, 'topics'), from, '+', 'LIMIT', 0, limit) or {}
  -- With scores that somebody else has given they need not ascend: then the list ends here until the sweep.
  local reply = { #names == limit and names[limit] > a[2] and names[limit] or '' }
  for _, topic in ipairs(names) do
    local shown = topic > a[2] and not topic_fault(topic)
    if shown and redis.call('EXISTS', key(p, 'log:' .. topic)) == 1 then reply[#reply + 1] = topic end
  end
  return reply
end })

local LIBRARIES = PREFIX .. ':libraries'

-- Replicas that were heard of in the last seconds.
local ALIVE_MS, FORGET_MS = 5000, 60000
local function replicas(now)
  local alive, all = {}, redis.call('HGETALL', PREFIX .. ':replicas')
  for i = 1, #all, 2 do
    local seen, streams = string.match(all[i + 1], '^(%d+) (%d+)$')
    local age = now - tonumber(seen or 0)
    alive[#alive + 1] = { name = all[i], streams = streams or '0', alive = age < ALIVE_MS, forget = age > FORGET_MS }
  end
  table.sort(alive, function(x, y) return x.name < y.name end)
  return alive
end

-- What heartbeats say is said again every second, so nothing is lost with what else stands there.
local function make_room(hash)
  local kindof = redis.call('TYPE', hash).ok
  if kindof ~= 'hash' and kindof ~= 'none' then redis.call('DEL', hash) end
end

-- library replica streams partitions anew (topic subscribers)*  ->  whether its subscribers were forgotten, and
-- whether the log's settings were, then name and streams of each replica that lives
redis.register_function({ function_name = F .. 'heartbeat', flags = { 'allow-oom' }, callback = function(_, a)
  local now, mine = time_ms(), PREFIX .. ':subscribers:' .. a[2]
  make_room(mine)
  make_room(PREFIX .. ':replicas')
  make_room(LIBRARIES)
  if a[5] == 'anew' then redis.call('DEL', mine) end
  local reply = { 1 - redis.call('EXISTS', mine), try('HSETNX', PREFIX .. ':meta', 'partitions', a[4]) or 0 }
  redis.call('HSET', LIBRARIES, a[1], int(now))
  redis.call('HSET', PREFIX .. ':replicas', a[2], int(now) .. ' ' .. a[3])
  -- In two calls: one for each topic takes longer than all else, and all others wait.
  local told, gone = { '', 0 }, {}
  for i = 6, #a, 2 do
    if a[i + 1] == '0' then gone[#gone + 1] = a[i] else told[#told + 1] = a[i]; told[#told + 1] = a[i + 1] end
  end
  redis.call('HSET', mine, unpack(told))
  if #gone > 0 then redis.call('HDEL', mine, unpack(gone)) end
  redis.call('PEXPIRE', mine, FORGET_MS)
  for _, replica in ipairs(replicas(now)) do
    if replica.forget then redis.call('HDEL', PREFIX .. ':replicas', replica.name) end
    if replica.alive then reply[#reply + 1] = replica.name; reply[#reply + 1] = replica.streams end
  end
  return reply
end })

-- ->  whether there is more to note. One partition after the other, a second each.
redis.register_function({ function_name = F .. 'note_topics', flags = { 'allow-oom' }, callback = function()
  local more = false
  -- What stands in the way there is no fault of who asks.
  pcall(function()
    local count = tonumber(redis.call('HGET', PREFIX .. ':meta', 'partitions') or 1)
    local k = clock(int(math.floor(time_ms() / 1000) % count))
    more = k.last and note_some(k, 100, 25)
  end)
  return more and 1 or 0
end })

-- What a ticket stands for is kept by the ticket's name, and counted for its owner. Both go by themselves.
local function ticket(name) return PREFIX .. ':ticket:' .. name end
local function tickets_of(owner) return PREFIX .. ':tickets:' .. owner end

-- name sealed owner life most  ->  0, or the milliseconds until one is over of an owner that has as many as may be
redis.register_function(F .. 'put_ticket', function(_, a)
  local now, own, life = time_ms(), tickets_of(a[3]), tonumber(a[4])
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', own, '-inf', int(now))) do redis.call('ZREM', own, name) end
  local kept = redis.call('ZRANGEBYSCORE', own, '-inf', '+inf', 'WITHSCORES')
  if #kept / 2 >= tonumber(a[5]) then return math.max(1, tonumber(kept[2]) - now) end
  redis.call('SET', ticket(a[1]), a[2], 'PX', int(life))
  redis.call('ZADD', own, int(now + life), a[1])
  redis.call('PEXPIRE', own, int(life))
  return 0
end)

-- name owner  ->  whether it was there
redis.register_function({ function_name = F .. 'take_ticket', flags = { 'allow-oom' }, callback = function(_, a)
  redis.call('ZREM', tickets_of(a[2]), a[1])
  return redis.call('DEL', ticket(a[1]))
end })

-- p  ->  whether more topics may be gone
redis.register_function({ function_name = F .. 'sweep', flags = { 'allow-oom' }, callback = function(_, a)
  local k = clock(a[1])
  return k.last and sweep(k, SWEPT_AT_ONCE) and 1 or 0
end })

-- own library*  ->  those of these libraries that no replica has used for UNUSED_MS. Replicas say with
-- each heartbeat which one they use; one of which nothing was heard is taken for used now.
local UNUSED_MS = 3600000
redis.register_function({ function_name = F .. 'libraries', flags = { 'allow-oom' }, callback = function(_, a)
  make_room(LIBRARIES)
  local now, there, unused = time_ms(), {}, {}
  redis.call('HSET', LIBRARIES, a[1], int(now))
  for i = 2, #a do
    there[a[i]] = true
    redis.call('HSETNX', LIBRARIES, a[i], int(now))
  end
  local known = redis.call('HGETALL', LIBRARIES)
  for i = 1, #known, 2 do
    if now - (tonumber(known[i + 1]) or 0) > UNUSED_MS then
      redis.call('HDEL', LIBRARIES, known[i])
      if there[known[i]] then unused[#unused + 1] = known[i] end
    end
  end
  return unused
end })

-- What was taken back. DENIED has subjects and tokens that are refused, DISCONNECTED patterns of topics whose streams were
-- ended; the score is when, in milliseconds of this server. It is given out once, and only grows.
local DENIED, DISCONNECTED = PREFIX .. ':denied', PREFIX .. ':disconnected'
local DENIALS_SWEPT, DENIALS_PAGE = 100, 250

local function denials() return redis.call('ZCARD', DENIED) + redis.call('ZCARD', DISCONNECTED) end

-- denied|disconnected text ms most  ->  when it was: takes a right back. The same text again counts from now on; what is
-- older than `ms` makes room. Each list has `most` at most, and then the older stay: whoever may end streams of a few topics
-- must not keep others from locking a subject out, or from ending all.
redis.register_function({ function_name = F .. 'deny', flags = { 'allow-oom' }, callback = function(_, a)
  local now, meta, list, most = time_ms(), PREFIX .. ':meta', a[1] == 'denied' and DENIED or DISCONNECTED, tonumber(a[4])
  local old = redis.call('ZRANGEBYSCORE', list, '-inf', int(now - tonumber(a[3])), 'LIMIT', 0, DENIALS_SWEPT)
  if #old > 0 then redis.call('ZREM', list, unpack(old)) end
  local at = int(math.max(now, tonumber(redis.call('HGET', meta, 'denied') or 0) + 1))
  -- One that is there changes its score, and is counted then.
  if redis.call('ZADD', list, 'XX', 'CH', at, a[2]) == 0 then
    if a[2] ~= 'all' and redis.call('ZCARD', list) >= most then return refuse('TGDENIALS', int(most)) end
    redis.call('ZADD', list, at, a[2])
  end
  redis.call('HSET', meta, 'denied', at)
  return at
end })

-- since  ->  when the last was, what time it is, how many there are, up to where this page goes; then text and when of each
redis.register_function({ function_name = F .. 'denied', flags = { 'no-writes' }, callback = function(_, a)
  local last, cut, found = tonumber(redis.call('HGET', PREFIX .. ':meta', 'denied') or 0), math.huge, {}
  for _, list in ipairs({ DENIED, DISCONNECTED }) do
    local got = redis.call('ZRANGEBYSCORE', list, '(' .. a[1], '+inf', 'WITHSCORES', 'LIMIT', 0, DENIALS_PAGE)
    for i = 1, #got, 2 do found[#found + 1] = { got[i], tonumber(got[i + 1]) } end
    if #got == 2 * DENIALS_PAGE then cut = math.min(cut, tonumber(got[#got])) end
  end
  -- The field may be gone while the lists are there.
  for _, entry in ipairs(found) do last = math.max(last, entry[2]) end
  local reply = { int(last), int(time_ms()), int(denials()), int(math.min(cut, last)) }
  for _, entry in ipairs(found) do
    if entry[2] <= cut then reply[#reply + 1] = entry[1]; reply[#reply + 1] = int(entry[2]) end
  end
  return reply
end })

-- p topic replica  ->  first last length ended, and subscribers on other replicas
redis.register_function({ function_name = F .. 'topic', flags = { 'no-writes' }, callback = function(_, a)
  local log, elsewhere = key(a[1], 'log:' .. a[2]), 0
  for _, replica in ipairs(replicas(time_ms())) do
    if replica.alive and replica.name ~= a[3] then
      elsewhere = elsewhere + tonumber(redis.call('HGET', PREFIX .. ':subscribers:' .. replica.name, a[2]) or 0)
    end
  end
  local first = (try('XRANGE', log, '-', '+', 'COUNT', 1) or {})[1]
  if not first then return { '', '', 0, 0, elsewhere } end
  local last, flag = head(a[1], a[2])
  return { position(first[1]), last or position(first[1]), redis.call('XLEN', log), flag == 'end' and 1 or 0, elsewhere }
end })

-- Ingest: an epoch is one counting of the raw publishes of one node; (epoch, n) names a publish
-- alike at every ear, and `n:<epoch>` moves by one, atomically with the log.
local EPOCHS_MAX, EPOCH_MS = 64, 600000

local function epochs_of(hash)
  local list = {}
  for name, since in string.gmatch(redis.call('HGET', hash, 'epochs') or '', '(%S+)@(%d+)') do
    list[#list + 1] = { name = name, since = tonumber(since) }
  end
  return list
end

-- Ears may hear channels besides those that all hear: their map, named by its patterns. `maps` holds
-- `NAME@SEEN_MS=PATTERNS` of each map that was heard of lately, `ears` holds `NAME=EAR` of each ear that has one.
local MAPS_MAX, MAP_MS = 32, 600000

-- Which ears have which maps, and for each map whether one of them lives, or is only not forgotten; one ear is left
-- out.
local function ears_with_maps(hash, but, now)
  local known, ears, lives = {}, {}, {}
  for _, replica in ipairs(replicas(now)) do
    if not replica.forget then known[replica.name] = replica end
  end
  for map, ear in string.gmatch(redis.call('HGET', hash, 'ears') or '', '(%x+)=(%S+)') do
    if ear ~= but and known[ear] then
      ears[#ears + 1] = map .. '=' .. ear
      lives[map] = lives[map] or known[ear].alive
    end
  end
  return ears, lives
end

-- Notes the map of one ear. All maps that ears may have, by name and patterns, and which of them have ears that live.
local function note_map(hash, ear, map, patterns, now)
  local ears, lives = ears_with_maps(hash, ear, now)
  local maps, texts = {}, {}
  if map ~= '-' then
    ears[#ears + 1], lives[map] = map .. '=' .. ear, true
    maps[1] = { name = map, seen = now, patterns = patterns }
  end
  for name, seen, others in string.gmatch(redis.call('HGET', hash, 'maps') or '', '(%x+)@(%d+)=(%S+)') do
    seen = lives[name] ~= nil and now or tonumber(seen)
    if name ~= map and now - seen < MAP_MS then maps[#maps + 1] = { name = name, seen = seen, patterns = others } end
  end
  if #maps > MAPS_MAX then
    local living = {}
    for _, other in ipairs(maps) do if lives[other.name] ~= nil then living[#living + 1] = other end end
    maps = living
  end
  if #maps > MAPS_MAX then return nil end
  for i, other in ipairs(maps) do texts[i] = other.name .. '@' .. int(other.seen) .. '=' .. other.patterns end
  redis.call('HSET', hash, 'maps', table.concat(texts, ' '), 'ears', table.concat(ears, ' '))
  return maps, lives
end

-- p epoch ear map patterns  ->  what is told of it: begins an epoch, once, and names all maps that ears may have. A map
-- without a living ear is named all the same: nobody counts what it alone has, and nobody waits for it (`m:<epoch>`).
redis.register_function({ function_name = F .. 'start', flags = { 'allow-oom' }, callback = function(_, a)
  local hash, name, now = key(a[1], 'ingest'), a[2], time_ms()
  if redis.call('HEXISTS', hash, 'n:' .. name) == 1 then return '' end
  local maps, lives = note_map(hash, a[3], a[4], a[5], now)
  if not maps then return refuse('TGMAPS', 'ears have more than ' .. MAPS_MAX .. ' maps of channels at once') end
  local list, texts, words, waits = epochs_of(hash), {}, {}, {}
  list[#list + 1] = { name = name, since = now }
  while #list > EPOCHS_MAX and list[1].since + EPOCH_MS < now do
    local old = table.remove(list, 1).name
    redis.call('HDEL', hash, 'n:' .. old, 'h:' .. old, 'fin:' .. old, 'x:' .. old, 'm:' .. old, 'ended:' .. old)
  end
  for i, epoch in ipairs(list) do texts[i] = epoch.name .. '@' .. int(epoch.since) end
  redis.call('HSET', hash, 'epochs', table.concat(texts, ' '), 'n:' .. name, 0)
  for i, map in ipairs(maps) do
    words[i] = ' ' .. map.name .. '=' .. map.patterns
    waits[i] = map.name .. (lives[map.name] and '+' or '-')
  end
  if #maps > 0 then redis.call('HSET', hash, 'm:' .. name, table.concat(waits, ' ')) end
  local told = 'start ' .. name .. ' ' .. a[3] .. ' ' .. run() .. ' ' .. a[4] .. ' ' .. #maps .. table.concat(words)
  redis.call('PUBLISH', PREFIX .. ':ingest', told)
  return told
end })

-- p ear: an ear goes, and nobody waits for it.
redis.register_function({ function_name = F .. 'leave', flags = { 'allow-oom' }, callback = function(_, a)
  local hash = key(a[1], 'ingest')
  if redis.call('HEXISTS', hash, 'ears') == 1 then
    redis.call('HSET', hash, 'ears', table.concat(ears_with_maps(hash, a[2], time_ms()), ' '))
  end
  redis.call('PUBLISH', PREFIX .. ':ingest', 'leave ' .. a[2] .. ' -')
  return redis.status_reply('OK')
end })

-- Whether an earlier epoch is not finished: what all hear, or what a map hears that had ears when this one began.
-- Forced, it is finished now.
local function unfinished(hash, name, force)
  local earlier, fields, live = {}, { 'm:' .. name }, {}
  for _, epoch in ipairs(epochs_of(hash)) do
    if epoch.name == name then break end
    earlier[#earlier + 1] = epoch.name
    for _, field in ipairs({ 'fin:', 'm:', 'ended:' }) do fields[#fields + 1] = field .. epoch.name end
  end
  if #earlier == 0 then return false end
  local had = redis.call('HMGET', hash, unpack(fields))
  for map in string.gmatch(had[1] or '', '(%x+)%+') do live[map] = true end
  for i, epoch in ipairs(earlier) do
    local fin, maps, ended = had[3 * i - 1], had[3 * i] or '', had[3 * i + 1] or ''
    local waits = not fin
    for map in string.gmatch(maps, '(%x+)[+-]') do
      if live[map] and not string.find(ended, map, 1, true) then
        waits, ended = true, ended .. ' ' .. map
      end
    end
    if waits then
      if not force then return true end
      redis.call('HSET', hash, 'fin:' .. epoch, 1, 'ended:' .. epoch, ended)
    end
  end
  return false
end

-- What is said of something that the log did not take: the beginning of its topic, and the error's first
-- word and the rest of it.
local function refusal_of(topic, no)
  local code, why = string.match(no.err, '^%-?(%S+) ?(.*)$')
  return { string.sub(topic, 1, 80), code, why }
end

-- The same in one text.
local function reason_of(no) return (string.gsub(no.err, '^%-', '')) end

-- An event, or nil and why not. A log that has come to the greatest id of all takes no entry any more,
-- and says so in other words than one that holds a greater id.
local function event_or_refusal(k, topic, kind, data)
  local no = refusal(k, topic, kind, data)
  if no then return nil, no end
  local results = { pcall(event, k, topic, kind, data) }
  if results[1] then return results[2], results[3] end
  local why = type(results[2]) == 'table' and results[2].err or results[2]
  if string.find(why, 'exhausted', 1, true) then return nil, from_the_future(topic, 'or did') end
  error(results[2], 0)
end

-- Refusals of one append that are told with their reasons.
local REFUSALS_MAX = 8

-- A reason without the names that it tells of: of these, the words alone tell nothing.
local WITHOUT_NAMES = { TGINVALID = true, TGLARGE = true, TGTOPICS = true }
local function nameless(reason)
  local code = string.match(reason, '^(%u+) ')
  return code and not WITHOUT_NAMES[code] and code or reason
end

-- What is refused of raw publishes and inbox entries is told to whoever reads this topic, without names: anybody
-- may read it, and a name may be all that keeps a topic private. The last of it is kept for who operates Redis, with them. No more than so much a second: publishers that are wrong are wrong often.
local REFUSED, REFUSED_KEPT, REFUSED_A_SECOND, REFUSED_MS = 'tidegate.refused', 100, 10, 604800000
local function note_refused(way, topic, reason, size)
  local second, kept = PREFIX .. ':refused:second', PREFIX .. ':refused'
  local count = tonumber(redis.call('GET', second) or 0)
  if count >= REFUSED_A_SECOND then return end
  if count == 0 then redis.call('SET', second, 1, 'PX', 1000) else redis.call('SET', second, int(count + 1), 'KEEPTTL') end
  topic = string.sub(topic, 1, 80)
  if not is_utf8(topic) then topic = string.gsub(topic, '[\128-\255]', '?') end
  local now = time_ms()
  local note = cjson.encode({ way = way, topic = topic, reason = reason, size = size, time = now })
  redis.call('XADD', kept, 'MAXLEN', REFUSED_KEPT, '*', 'note', note)
  redis.call('PEXPIRE', kept, REFUSED_MS)
  local partitions = tonumber(redis.call('HGET', PREFIX .. ':meta', 'partitions') or 1)
  say({ p = partition_of(REFUSED, partitions) }, REFUSED, '0-0', '0-0', 'u', '',
    cjson.encode({ way = way, reason = nameless(reason), size = size, time = now }))
end

-- The same. What stands in the way of it is in the way of nothing else.
local function tell_refused(...) pcall(note_refused, ...) end

-- How far an epoch has come: number and hash of each class. Class 0 is what all ears hear; the others are of channels
-- that the same maps have, and stand together in one field. None if the epoch is forgotten.
local function positions(hash, name)
  local n, h, others = unpack(redis.call('HMGET', hash, 'n:' .. name, 'h:' .. name, 'x:' .. name))
  if not n then return nil end
  local at = { ['0'] = { n = tonumber(n), hash = h } }
  for class, number, own in string.gmatch(others or '', '(%d+):(%d+):(%d+)') do
    at[class] = { n = tonumber(number), hash = own }
  end
  return at
end

local function keep_position(hash, name, at, class)
  if class == '0' then return redis.call('HSET', hash, 'n:' .. name, int(at[class].n), 'h:' .. name, at[class].hash) end
  local texts = {}
  for other, position in pairs(at) do
    if other ~= '0' then texts[#texts + 1] = other .. ':' .. int(position.n) .. ':' .. position.hash end
  end
  redis.call('HSET', hash, 'x:' .. name, table.concat(texts, ' '))
end

-- The same for ears: class 0, and then the others.
local function positions_text(at)
  local texts = { '0:' .. int(at['0'].n) }
  for class, position in pairs(at) do
    if class ~= '0' then texts[#texts + 1] = class .. ':' .. int(position.n) end
  end
  return texts
end

-- An ear's map has just so many of each class. What all hear is finished for all, what its map hears for the map.
local function end_epoch(hash, name, map, ending, at)
  local all = true
  for class, n in string.gmatch(ending, '(%d+):(%d+)') do
    local reached = at[class] and at[class].n == tonumber(n) or not at[class] and n == '0'
    all = all and reached
    if class == '0' and reached then redis.call('HSET', hash, 'fin:' .. name, 1) end
  end
  if not all or map == '-' then return end
  local ended = redis.call('HGET', hash, 'ended:' .. name) or ''
  if not string.find(ended, map, 1, true) then redis.call('HSET', hash, 'ended:' .. name, ended .. ' ' .. map) end
end

-- Where each class of an append goes on: the number of its next item, or how many are missing before that. From
-- there on `at` has every class.
local function first_numbers(hash, name, a, items, at, force)
  local numbers = {}
  for j = 8, items - 1, 3 do
    local class, first, before = a[j], tonumber(a[j + 1]), a[j + 2]
    local here = at[class] or { n = 0, hash = '0' }
    if first > here.n + 1 then
      if not force then return nil end
      here.n, here.hash, at[class] = first - 1, before, here
      keep_position(hash, name, at, class)
    end
    at[class], numbers[class] = here, first
    -- What this ear has heard up to there, if it says so.
    here.mine = first == here.n + 1 and before or nil
  end
  return numbers
end

-- Whether an ear has heard something else up to where the log stands.
local function diverges(a, items, at, numbers)
  local next = {}
  for class, first in pairs(numbers) do next[class] = first end
  for j = items, #a, 6 do
    local class = a[j]
    if next[class] == at[class].n then at[class].mine = a[j + 1] end
    next[class] = next[class] + 1
  end
  for class in pairs(numbers) do
    local here = at[class]
    if here.n > 0 and here.hash and here.mine and here.mine ~= here.hash then return true end
  end
  return false
end

-- p epoch ear map force end classes (class first hash-before)* (class hash partition topic type data)*
-- Without a topic it is no event: then its type is the reason, and its data are its size and its channel.
--   ->  OK|STALE|WAIT|HOLE|DIVERGED positions logged refused refusals
redis.register_function(F .. 'append', function(_, a)
  local hash, name, ear, map, force, ending = key(a[1], 'ingest'), a[2], a[3], a[4], a[5] == '1', a[6]
  local at, items = positions(hash, name), 8 + 3 * tonumber(a[7])
  if not at then return { 'STALE', '', 0, 0, {} } end
  if unfinished(hash, name, force) then return { 'WAIT', '', 0, 0, {} } end
  local numbers = first_numbers(hash, name, a, items, at, force)
  if not numbers then return { 'HOLE', '', 0, 0, {} } end
  if diverges(a, items, at, numbers) then return { 'DIVERGED', '', 0, 0, {} } end
  local clocks, logged, refused, refusals = {}, 0, 0, {}
  for j = items, #a, 6 do
    local class, p, topic, kind, data = a[j], a[j + 2], a[j + 3], a[j + 4], a[j + 5]
    local here, i = at[class], numbers[class]
    numbers[class] = i + 1
    if i > here.n then
      local k, id, no = clocks[p] or clock(p), nil, nil
      clocks[p] = k
      if topic ~= '' then id, no = event_or_refusal(k, topic, kind, data)
      else
        local size, channel = string.match(data, '^(%d+) (.*)$')
        tell_refused('raw', channel or '', kind, tonumber(size))
      end
      if id then logged = logged + 1 else refused = refused + 1 end
      if no then
        tell_refused('raw', topic, reason_of(no), #data)
        if #refusals < REFUSALS_MAX then refusals[#refusals + 1] = refusal_of(topic, no) end
      end
      here.n, here.hash = i, a[j + 1]
      keep_position(hash, name, at, class)
    end
  end
  if ending ~= '' then end_epoch(hash, name, map, ending, at) end
  local done = positions_text(at)
  -- Builds that know of no maps read up to the ear.
  local told = { 'done', name, int(at['0'].n), ear, map, unpack(done, 2) }
  redis.call('PUBLISH', PREFIX .. ':ingest', table.concat(told, ' '))
  return { 'OK', table.concat(done, ' '), logged, refused, refusals }
end)

-- What one call takes out of the inbox: so many entries, and so many bytes of them, but at least one.
local INBOX_ENTRIES, INBOX_BYTES = 64, 262144
-- Bytes of an entry that are given back to Redis at once, whenever Lua would get to it.
local INBOX_LARGE = 1048576
-- Fields that an entry may have, and what each text of it costs beside its bytes.
local INBOX_FIELDS, TEXT_COST = 16, 64

local function texts_looked_at(entry) return math.min(#entry[2], 2 * INBOX_FIELDS) end

-- What it costs to have an entry of the inbox here.
local function inbox_cost(entry)
  local cost = ENTRY_COST + TEXT_COST * #entry[2]
  for i = 1, texts_looked_at(entry) do cost = cost + #entry[2][i] end
  return cost
end

-- Bytes that a node of a stream does not take beside other entries, as Redis is shipped.
local NODE_BYTES = 4096

-- The bytes of the first node of the inbox, in which its first entry stands; more than any number if that
-- cannot be known. Redis counts each node as large as the first one, except the last: so one node more counts
-- that much more. Those that are added to see it are gone before anybody else sees them. Where nodes are larger
-- than as shipped, an addition makes no node, or one of them does: the least counts, and nothing is too large.
local function first_node_bytes(inbox)
  local added, before, least = {}, nil, math.huge
  redis.set_repl(redis.REPL_NONE)
  for i = 1, 3 do
    local id = redis.pcall('XADD', inbox, '*', 'node', string.rep('x', NODE_BYTES))
    -- It has come to the greatest id.
    if type(id) ~= 'string' then least = math.huge; break end
    local all = redis.call('MEMORY', 'USAGE', inbox, 'SAMPLES', 1)
    least, before, added[i] = math.min(least, before and all - before or least), all, id
  end
  if added[1] then redis.call('XDEL', inbox, unpack(added)) end
  redis.set_repl(redis.REPL_ALL)
  return least
end

-- Drops the first entry of the inbox without a look at it if it is larger than `most`: to have ten megabytes of
-- short texts here takes two seconds, and Redis answers nobody meanwhile. The refusal, or nil. Where this user may
-- not ask for sizes, none is too large.
local function drop_giant(inbox, most)
  local all = redis.pcall('MEMORY', 'USAGE', inbox, 'SAMPLES', 1)
  if type(all) ~= 'number' or all <= most then return end
  local bytes = first_node_bytes(inbox)
  if bytes <= most then return end
  redis.call('XTRIM', inbox, 'MAXLEN', '=', redis.call('XLEN', inbox) - 1)
  tell_refused('inbox', '', 'TGLARGE ' .. int(most), math.min(all, bytes))
  return { '', 'TGLARGE', 'dropped unread: more than ' .. int(most) .. ' bytes' }
end

-- The event that an entry of the inbox asks for, in one of so many partitions.
local function inbox_item(entry, partitions)
  local fields = {}
  for i = 1, texts_looked_at(entry), 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local topic, ending = fields.topic or '', fields['end'] or ''
  -- What is too long to be a topic is refused; its sum is not worth the time.
  local p = #topic <= 255 and partition_of(topic, partitions) or '0'
  local last = ending ~= '' and ending ~= '0' and ending ~= 'false'
  -- The type's old name is event.
  local kind, twice = fields.type or fields.event or '', fields.type ~= nil and fields.event ~= nil
  return {
    p = p, topic = topic, kind = kind, twice = twice, data = fields.data or '', last = last, key = fields.key or '',
    fields = #entry[2] / 2,
  }
end

-- Why an entry is refused before more is done with its texts than to measure them.
local function inbox_refusal(item, most)
  if #item.data > most then return refuse('TGLARGE', int(most)) end
  if item.fields > INBOX_FIELDS then
    return refuse('TGINVALID', 'an entry of the inbox has at most ' .. INBOX_FIELDS .. ' fields, and this one has ' .. int(item.fields))
  end
  if item.twice then return refuse('TGINVALID', 'type and event: both are the type of the event, event by its old name; an entry has type alone') end
  -- Keys of publishers over HTTP are hashes that begin with a character beyond these: nobody else can write one.
  if #item.key > 255 or string.find(item.key, '[^\32-\126]') then
    return refuse('TGINVALID', 'an idempotency key has at most 255 printable ASCII characters')
  end
end

-- Publishes one entry, unless an earlier build has done so. Such builds delete an entry later than they
-- publish it: what they have moved is told by their position, where it is above our own.
local function publish_entry(entry, item, most)
  local hash = key(item.p, 'ingest')
  local theirs, ours = unpack(redis.call('HMGET', hash, 'inbox', 'inbox:exact'))
  theirs, ours = is_id(theirs) and theirs or '0-0', is_id(ours) and ours or '0-0'
  local is_theirs = less(ours, entry[1]) and not less(theirs, entry[1])
  local no = not is_theirs and inbox_refusal(item, most)
  if not is_theirs and not no then
    local done, ids = pcall(publish, { item })
    local why = not done and (type(ids) == 'table' and ids.err or ids)
    if why and string.find(why, 'exhausted', 1, true) then ids = from_the_future(item.topic, 'or did')
    elseif why then error(ids, 0) end
    no = ids.err and ids
    -- That is about us, not about the entry.
    if no and string.find(no.err, 'NOPERM', 1, true) then error(no, 0) end
  end
  redis.call('XDEL', PREFIX .. ':inbox', entry[1])
  if is_id(entry[1]) then
    if less(theirs, entry[1]) then theirs, ours = entry[1], entry[1] end
    redis.call('HSET', hash, 'inbox', theirs, 'inbox:exact', ours)
  end
  return not is_theirs, no
end

-- An empty inbox remembers its greatest id, and takes none below it: one that no clock comes to is the
-- last. Then it is begun anew, with the positions in it. That id, or nil.
local function renew_inbox(partitions)
  local inbox = PREFIX .. ':inbox'
  local last = greatest(inbox)
  if is_id(last) then return end
  redis.call('DEL', inbox)
  for p = 0, partitions - 1 do redis.call('HDEL', key(int(p), 'ingest'), 'inbox', 'inbox:exact') end
  return last
end

-- The entry after another one. Nothing comes after the greatest id, and XRANGE refuses to look.
local GREATEST = '18446744073709551615-18446744073709551615'
local function next_entry(inbox, after)
  if after == GREATEST then return end
  return redis.call('XRANGE', inbox, '(' .. after, '+', 'COUNT', 1)[1]
end

-- Before the first entry.
local BEGIN = '0-0'

-- Moves the entry after `moved.after`, or drops it. What it has cost; nil if there is none.
local function move_next(inbox, moved, partitions, most)
  -- What comes after one that stayed cannot be measured.
  local dropped = moved.after == BEGIN and drop_giant(inbox, INBOX_BYTES + clock('0').bytes_max)
  if dropped then
    moved.refusals[#moved.refusals + 1] = dropped
    return ENTRY_COST
  end
  -- One alone: the next may be of any size.
  local entry = next_entry(inbox, moved.after)
  if not entry then return end
  local item, cost = inbox_item(entry, partitions), inbox_cost(entry)
  most[item.p] = most[item.p] or clock(item.p).bytes_max
  local done, is_new, no = pcall(publish_entry, entry, item, most[item.p])
  if not done then
    local why = type(is_new) == 'table' and is_new.err or tostring(is_new)
    moved.after, moved.failed = entry[1], moved.failed ~= '' and moved.failed or entry[1] .. ' ' .. why
  elseif no then
    moved.refusals[#moved.refusals + 1] = refusal_of(item.topic, no)
    tell_refused('inbox', item.topic, reason_of(no), #item.data)
  elseif is_new then moved.logged = moved.logged + 1 end
  return cost
end

-- partitions after  ->  logged, after which entry there may be more, at which entry Redis failed and why,
-- the greatest id of an inbox that was begun anew, how many entries are left, and refusals: moves entries
-- out of the inbox, from the first one, or from the one after `after`. Each is deleted in the same step
-- in which it is published, so what is there was not moved. One that fails stays, and is gone past.
redis.register_function(F .. 'inbox', function(_, a)
  local partitions, inbox = tonumber(a[1]), PREFIX .. ':inbox'
  local moved = { after = (a[2] or '') ~= '' and a[2] or BEGIN, logged = 0, failed = '', refusals = {} }
  local cost, more, most = 0, '', {}
  for _ = 1, INBOX_ENTRIES do
    local one = move_next(inbox, moved, partitions, most)
    if not one then more = ''; break end
    cost, more = cost + one, moved.after
    if one > INBOX_LARGE then collectgarbage() end
    if cost >= INBOX_BYTES then break end
  end
  local left = redis.call('XLEN', inbox)
  local renewed = left == 0 and renew_inbox(partitions)
  return { moved.logged, more, moved.failed, renewed or '', left, moved.refusals }
end)

redis.register_function({ function_name = F .. 'version', flags = { 'no-writes' }, callback = function() return { @VERSION@, CODE } end })
