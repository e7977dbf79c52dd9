-- target, lease, tip, applied, pin, grant, host, where, pid, claims...: the session there is, or a new one. A server
-- that has no generation, or not all of one, or has one that began on another server or in another run of it (what is
-- here then may be old), begins a new one.
local target, lease = ARGV[3], tonumber(ARGV[4])
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local g = whole()
local id = sid
local lost = 0

if not g or redis.call('HGET', G, 'run') ~= run then
	for _, old in ipairs(redis.call('HKEYS', S)) do
		redis.call('DEL', P .. 'h:' .. old, P .. 'v:' .. old)
	end
	redis.call('DEL', G, S, L, Q)
	g = target
	redis.call('HSET', G, 'gen', g, 'run', run, 'young', text(now + lease), 'pause', '0', 'beat', text(now),
		'grant', '0', 'turn', '', 'turn_until', '0')
	redis.call('HSET', L, 'gen', g)
end
beat(lease)
local s = g == gen and session(sid)
if not s then
	id = target
	drop_locks(id)
	s = {h = ARGV[9], w = ARGV[10], p = ARGV[11], j = now}
	redis.call('HSET', S, id, cmsgpack.pack({u = 0}))
	-- In the generation that the caller knows its session has been revoked: others may have had its locks since.
	if g ~= gen then
		lost = claim(12, id)
	end
	if lost > 0 then
		drop_locks(id)
	end
end
s.u, s.a, s.n = now + lease, ARGV[6], ARGV[7]
redis.call('HSET', S, id, cmsgpack.pack(s))
outlive(id)
local grant = math.max(tonumber(redis.call('HGET', G, 'grant')), tonumber(ARGV[8]))
redis.call('HSET', G, 'grant', text(grant))
local tip, news = max_tip(ARGV[5])
if news then
	say_tip(tip, '')
end
return {g, id, tip, text(grant), text(lost)}
