-- Nine texts for each session.
if stale() then
	return {'stale'}
end
local ids = redis.call('HKEYS', S)
local answer = {}
table.sort(ids)
for _, id in ipairs(ids) do
	local s = session(id)
	for _, v in ipairs({id, s.h, s.w, s.p, text(math.max(0, now - s.j)), text(s.u - now), s.a, s.n,
		text(redis.call('SCARD', P .. 'h:' .. id))}) do
		answer[#answer + 1] = v
	end
end
return answer
