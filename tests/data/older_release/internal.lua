-- The internal functions: what replicas call. Another version of them lives under another name.

local F = '@PREFIX@_v@VERSION@_'

local function items_of(args, from)
  local items = {}
  for i = from, #args, 5 do
    items[#items + 1] = { topic = args[i], kind = args[i + 1], data = args[i + 2], last = args[i + 3] == 'end', key = args[i + 4] }
  end
  return items
end

local function horizon(k)
  return { k.last, k.born, k.seams, int(math.max(k.now, k.ms)), run() }
end

local function no_clock() return refuse('TGNOCLOCK', 'this partition has no clock yet') end

-- How the log stands: log, none, unlogged or foreign; its floor, its end, whether there is more, and
-- entries above `after`, until `limit` or PAGE_BYTES. Above the clock there is nothing of ours.
local function page(k, topic, after, limit)
  local log, entries, bytes, from, more = key(k.p, 'log:' .. topic), {}, 0, '(' .. after, 0
  local first, foreign = try('XRANGE', log, '-', k.last, 'COUNT', 1)
  if foreign or not first[1] then
    local state = foreign and 'foreign' or is_logged(k, topic) and 'none' or 'unlogged'
    return { state, id_text(oldest(k, topic, math.max(k.now, k.ms)), 0), '', 0, entries }
  end
  local floor, fields = id_text(id_parse(first[1][1]), 0), first[1][2]
  for i = 1, #fields, 2 do if fields[i] == 'prev' then floor = fields[i + 1] end end
  local last, flag = head(k.p, topic)
  while #entries < limit do
    -- A few first: their size tells how many more fit.
    local fit = bytes == 0 and 4 or math.ceil((PAGE_BYTES - bytes) * #entries / bytes)
    local count = math.min(fit, 32, limit - #entries)
    local got = redis.call('XRANGE', log, from, k.last, 'COUNT', count)
    for _, entry in ipairs(got) do
      entries[#entries + 1] = entry
      for _, field in ipairs(entry[2]) do bytes = bytes + #field end
    end
    if #got < count then more = 0; break end
    from, more = '(' .. got[#got][1], 1
    if bytes >= PAGE_BYTES then break end
  end
  if more == 1 and #redis.call('XRANGE', log, from, k.last, 'COUNT', 1) == 0 then more = 0 end
  return { 'log', floor, flag == 'end' and last or '', more, entries }
end

local function known_seams(k)
  local seams = {}
  for before, after in string.gmatch(k.seams, '(%S+),(%S+)') do seams[#seams + 1] = { before = before, after = after } end
  return seams
end

-- Whether an id that a replica has heard, and that must be in the log, is not.
local function lacks(k, topic, id)
  if less(k.last, id) then return true end
  local log = key(k.p, 'log:' .. topic)
  if redis.call('EXISTS', log) == 0 then return id_parse(id) > oldest(k, topic, k.ms) end
  local floor = page(k, topic, id, 0)[2]
  return less(floor, id) and #redis.call('XRANGE', log, id, id) == 0
end

-- Widens the newest seam so that it covers `id`, and goes on behind it.
local function leap_over(k, id)
  local seams, texts = known_seams(k), {}
  local beyond = id_text(math.max(k.ms, (id_parse(id))) + 1, 0)
  if #seams > 0 then seams[#seams].after = beyond else seams[1] = { before = k.born, after = beyond } end
  for i, seam in ipairs(seams) do texts[i] = seam.before .. ',' .. seam.after end
  k.seams, k.last = table.concat(texts, ' '), beyond
  k.ms, k.seq = id_parse(beyond)
  redis.call('HSET', key(k.p, 'clock'), 'last', k.last, 'seams', k.seams)
end

-- Whether this id is above everything that the newest seam covers.
local function is_beyond_seams(k, id)
  local seams = known_seams(k)
  return not less(id, #seams > 0 and seams[#seams].after or k.born)
end

local function seam_around(k, id)
  for _, seam in ipairs(known_seams(k)) do
    if less(seam.before, id) and less(id, seam.after) then return seam end
  end
end

local function is_stream(log)
  local kindof = redis.call('TYPE', log).ok
  return kindof == 'stream', kindof == 'none'
end

-- What a replica knew of one topic before this process wrote: `id` last, and nothing at or below
-- `heard` is shown there any more. A stretch that was lost is written down.
local function report(k, topic, id, heard)
  local log = key(k.p, 'log:' .. topic)
  local exists, free = is_stream(log)
  if not exists and not free then return end
  local around = seam_around(k, heard)
  if around and #redis.call('XRANGE', log, '(' .. around.before, heard, 'COUNT', 1) > 0 then id = heard end
  if is_beyond_seams(k, id) and lacks(k, topic, id) then leap_over(k, id) end
  local seam = seam_around(k, id)
  if not seam then return end
  for _, entry in ipairs(redis.call('XRANGE', log, '(' .. seam.before, '+')) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'gap' then
        local from, lost = string.match(entry[2][i + 1], '^(%S+),(%S+)$')
        if from and less(from, id) and not less(lost, id) then return end
      end
    end
  end
  local span = seam.before .. ',' .. id
  append(k, topic, 'tidegate.gap', '', 'g' .. span, { 'gap', span })
end

-- Forgets heads of topics whose log has expired, a few at a time.
local function sweep(p)
  local heads, clock_key = key(p, 'heads'), key(p, 'clock')
  local found = redis.call('HSCAN', heads, redis.call('HGET', clock_key, 'sweep') or '0', 'COUNT', 64)
  for i = 1, #found[2], 2 do
    if redis.call('EXISTS', key(p, 'log:' .. found[2][i])) == 0 then redis.call('HDEL', heads, found[2][i]) end
  end
  redis.call('HSET', clock_key, 'sweep', found[1])
end

-- p (topic type data end key)*  ->  ids, empty where the topic is not logged
redis.register_function(F .. 'publish', function(_, a) return publish(a[1], items_of(a, 2)) end)

-- p topic  ->  id, or nil if there was no log
redis.register_function({ function_name = F .. 'delete', flags = { 'allow-oom' }, callback = function(_, a) return delete(a[1], a[2]) end })

-- p (topic after limit)*  ->  last born seams now run, then a page each: state floor ended more entries
redis.register_function({ function_name = F .. 'read', flags = { 'no-writes' }, callback = function(_, a)
  local k = clock(a[1])
  if not k.last then return no_clock() end
  local reply = horizon(k)
  for i = 2, #a, 3 do reply[#reply + 1] = page(k, a[i], a[i + 1], tonumber(a[i + 2])) end
  return reply
end })

-- p earliest|since|last N topic*  ->  the position before the first event asked for
redis.register_function({ function_name = F .. 'history', flags = { 'no-writes' }, callback = function(_, a)
  local k, ids = clock(a[1]), {}
  if not k.last then return no_clock() end
  local from, n = '-', tonumber(a[3])
  if a[2] == 'since' then from = '(' .. id_text(math.max(0, math.max(k.now, k.ms) - n), 0) end
  for i = 4, #a do
    local log = key(k.p, 'log:' .. a[i])
    local got = a[2] == 'last' and try('XREVRANGE', log, k.last, '-', 'COUNT', n) or try('XRANGE', log, from, k.last, 'COUNT', 1)
    for _, entry in ipairs(got or {}) do ids[#ids + 1] = entry[1] end
  end
  table.sort(ids, less)
  local first = ids[a[2] == 'last' and math.max(1, #ids - n + 1) or 1]
  if not first or n == 0 and a[2] == 'last' then return k.last end
  local ms, seq = id_parse(first)
  -- Only a foreign entry stands at the start of a millisecond.
  return seq > 0 and id_text(ms, seq - 1) or id_text(ms - 1, 2 ^ 53 - 1)
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
    fields[#fields + 1] = 'before'; fields[#fields + 1] = int(math.max(k.now, k.ms)) .. ' ' .. int(least)
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
  sweep(k.p)
  redis.call('PUBLISH', key(k.p, 'tick'), k.last)
  return { k.last, redis.call('HEXISTS', key(k.p, 'clock'), 'age_ms') }
end })

-- p heard (topic id)*: how far a replica followed the clock, and which id of each topic it knew
-- last, before this process wrote
redis.register_function({ function_name = F .. 'report', flags = { 'allow-oom' }, callback = function(_, a)
  local k = clock(a[1])
  take_over(k)
  if is_beyond_seams(k, a[2]) then leap_over(k, a[2]) end
  for i = 3, #a, 2 do report(k, a[i], a[i + 1], a[2]) end
  return redis.status_reply('OK')
end })

-- after limit p*  ->  topics that have a log
redis.register_function({ function_name = F .. 'topics', flags = { 'no-writes' }, callback = function(_, a)
  local found = {}
  for i = 3, #a do
    for _, topic in ipairs(redis.call('HKEYS', key(a[i], 'heads'))) do
      if topic > a[1] and redis.call('EXISTS', key(a[i], 'log:' .. topic)) == 1 then found[#found + 1] = topic end
    end
  end
  table.sort(found)
  for i = #found, tonumber(a[2]) + 1, -1 do found[i] = nil end
  return found
end })

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

-- replica streams (topic subscribers)*  ->  whether its subscribers were forgotten, then name and
-- streams of each replica that lives
redis.register_function({ function_name = F .. 'heartbeat', flags = { 'allow-oom' }, callback = function(_, a)
  local now, mine = time_ms(), PREFIX .. ':subscribers:' .. a[1]
  make_room(mine)
  make_room(PREFIX .. ':replicas')
  local reply = { 1 - redis.call('EXISTS', mine) }
  redis.call('HSET', PREFIX .. ':replicas', a[1], int(now) .. ' ' .. a[2])
  redis.call('HSET', mine, '', 0)
  for i = 3, #a, 2 do
    if a[i + 1] == '0' then redis.call('HDEL', mine, a[i]) else redis.call('HSET', mine, a[i], a[i + 1]) end
  end
  redis.call('PEXPIRE', mine, FORGET_MS)
  for _, replica in ipairs(replicas(now)) do
    if replica.forget then redis.call('HDEL', PREFIX .. ':replicas', replica.name) end
    if replica.alive then reply[#reply + 1] = replica.name; reply[#reply + 1] = replica.streams end
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
  return { first[1], last or first[1], redis.call('XLEN', log), flag == 'end' and 1 or 0, elsewhere }
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

-- p epoch ear: begins an epoch, once
redis.register_function({ function_name = F .. 'start', flags = { 'allow-oom' }, callback = function(_, a)
  local hash, name, now = key(a[1], 'ingest'), a[2], time_ms()
  if redis.call('HEXISTS', hash, 'n:' .. name) == 1 then return redis.status_reply('OK') end
  local list, texts = epochs_of(hash), {}
  list[#list + 1] = { name = name, since = now }
  while #list > EPOCHS_MAX and list[1].since + EPOCH_MS < now do
    local old = table.remove(list, 1).name
    redis.call('HDEL', hash, 'n:' .. old, 'h:' .. old, 'fin:' .. old)
  end
  for i, epoch in ipairs(list) do texts[i] = epoch.name .. '@' .. int(epoch.since) end
  redis.call('HSET', hash, 'epochs', table.concat(texts, ' '), 'n:' .. name, 0)
  redis.call('PUBLISH', PREFIX .. ':ingest', 'start ' .. name .. ' ' .. a[3] .. ' ' .. run())
  return redis.status_reply('OK')
end })

-- Earlier epochs that are not finished; forced, they are finished now.
local function unfinished(hash, name, force)
  for _, epoch in ipairs(epochs_of(hash)) do
    if epoch.name == name then return false end
    if redis.call('HEXISTS', hash, 'fin:' .. epoch.name) == 0 then
      if not force then return true end
      redis.call('HSET', hash, 'fin:' .. epoch.name, 1)
    end
  end
  return false
end

-- p epoch ear force end first hash-before (hash partition topic type data)*
--   ->  OK|STALE|WAIT|HOLE|DIVERGED n logged refused
redis.register_function(F .. 'append', function(_, a)
  local hash, name, ear, force = key(a[1], 'ingest'), a[2], a[3], a[4] == '1'
  local ending, first, before = tonumber(a[5] ~= '' and a[5] or nil), tonumber(a[6]), a[7]
  local n = tonumber(redis.call('HGET', hash, 'n:' .. name) or nil)
  if not n then return { 'STALE', 0, 0, 0 } end
  if unfinished(hash, name, force) then return { 'WAIT', n, 0, 0 } end
  if first > n + 1 then
    if not force then return { 'HOLE', n, 0, 0 } end
    n = first - 1
    redis.call('HSET', hash, 'n:' .. name, n, 'h:' .. name, before)
  end
  local known = redis.call('HGET', hash, 'h:' .. name)
  local mine = first == n + 1 and before or a[8 + 5 * (n - first)]
  if n > 0 and known and mine and mine ~= known then return { 'DIVERGED', n, 0, 0 } end
  local clocks, logged, refused = {}, 0, 0
  for j = 8, #a, 5 do
    local i, p, topic, kind, data = first + (j - 8) / 5, a[j + 1], a[j + 2], a[j + 3], a[j + 4]
    if i > n then
      local k = clocks[p] or clock(p)
      clocks[p] = k
      if topic ~= '' and not refusal(k, topic, kind, data) then
        event(k, topic, kind, data)
        logged = logged + 1
      else
        refused = refused + 1
      end
      redis.call('HSET', hash, 'n:' .. name, i, 'h:' .. name, a[j])
      n = i
    end
  end
  if ending == n then redis.call('HSET', hash, 'fin:' .. name, 1) end
  redis.call('PUBLISH', PREFIX .. ':ingest', 'done ' .. name .. ' ' .. int(n) .. ' ' .. ear)
  return { 'OK', n, logged, refused }
end)

-- p (entry topic type data end key)*  ->  logged refused: each entry of the inbox once
redis.register_function(F .. 'inbox', function(_, a)
  local hash, logged, refused = key(a[1], 'ingest'), 0, 0
  local done = redis.call('HGET', hash, 'inbox') or '0-0'
  for i = 2, #a, 6 do
    if less(done, a[i]) then
      local ids = publish(a[1], { { topic = a[i + 1], kind = a[i + 2], data = a[i + 3], last = a[i + 4] == 'end', key = a[i + 5] } })
      if ids.err then refused = refused + 1 else logged = logged + 1 end
      done = a[i]
      redis.call('HSET', hash, 'inbox', done)
    end
  end
  return { logged, refused }
end)

redis.register_function({ function_name = F .. 'version', flags = { 'no-writes' }, callback = function() return { @VERSION@, CODE } end })
