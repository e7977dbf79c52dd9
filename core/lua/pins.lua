-- lease: the lowest pin; nothing while mounters may be missing.
if stale() then
	return {'stale'}
end
if until_of('young', tonumber(ARGV[3])) > now then
	return {}
end
local lowest
for _, id in ipairs(redis.call('HKEYS', S)) do
	local s = session(id)
	if not lowest or s.n < lowest then
		lowest = s.n
	end
end
return {lowest}
