-- lease, applied, pin: the tip, and the sessions that have run out.
if stale() then
	return {'stale'}
end
local lease = tonumber(ARGV[3])
beat(lease)
local s = session(sid)
s.u, s.a, s.n = now + lease, ARGV[4], ARGV[5]
redis.call('HSET', S, sid, cmsgpack.pack(s))
outlive(sid)
local answer = {redis.call('HGET', G, 'tip') or ZERO}
for _, id in ipairs(redis.call('HKEYS', S)) do
	if run_out(session(id), lease) then
		answer[#answer + 1] = id
	end
end
return answer
