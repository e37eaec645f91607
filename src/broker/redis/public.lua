-- The public functions: what people and programs call with FCALL.

-- The partition follows from the topic. A key names it for those who must name keys. How many there are
-- a replica says, again within a second if FLUSHALL has taken it: what is published to a partition that
-- does not exist is read by nobody.
local function partition(keys, topic)
  local said, foreign = try('HGET', PREFIX .. ':meta', 'partitions')
  if foreign then return nil, refuse('TGFOREIGN', 'the key ' .. PREFIX .. ':meta holds something else') end
  local count = tonumber(said or nil)
  if not count then return nil, refuse('TGNOTREADY', 'no replica has said yet how many partitions there are: try again') end
  local p = partition_of(topic, count)
  if keys[1] and keys[1] ~= '{' .. p .. '}' then
    return nil, refuse('TGINVALID', 'the key, if there is one, is {PARTITION}: {' .. p .. '} for topic ' .. topic)
  end
  return p
end

-- FCALL @PREFIX@_publish 0 TOPIC DATA [TYPE] [end] [IDEMPOTENCY-KEY]  ->  id, or nil if the topic
-- is not logged
redis.register_function('@PREFIX@_publish', function(keys, a)
  if #a < 2 or #a > 5 then return refuse('TGINVALID', 'usage: FCALL @PREFIX@_publish 0 TOPIC DATA [TYPE] [end] [IDEMPOTENCY-KEY]') end
  if (a[4] or '') ~= '' and a[4] ~= 'end' then return refuse('TGINVALID', 'the fourth argument is end, or empty') end
  local p, no = partition(keys, a[1])
  if no then return no end
  local ids = publish({ { p = p, topic = a[1], data = a[2], kind = a[3] or '', last = a[4] == 'end', key = a[5] or '' } })
  if ids.err then return ids end
  return ids[1] ~= '' and ids[1]
end)

-- FCALL @PREFIX@_delete 0 TOPIC  ->  id of the deletion, or nil if there was no log
redis.register_function({ function_name = '@PREFIX@_delete', flags = { 'allow-oom' }, callback = function(keys, a)
  if #a ~= 1 then return refuse('TGINVALID', 'usage: FCALL @PREFIX@_delete 0 TOPIC') end
  local p, no = partition(keys, a[1])
  if no then return no end
  return delete(p, a[1])
end })

redis.register_function({ function_name = '@PREFIX@_version', flags = { 'no-writes' }, callback = function() return { @VERSION@, CODE } end })
