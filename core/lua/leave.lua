-- target, lease, hold: the session ends, which is the caller's own or has run out; '0' when it has not.
if stale() then
	return {'stale'}
end
local target, lease = ARGV[3], tonumber(ARGV[4])
if target ~= sid then
	beat(lease)
	local s = session(target)
	if s and not run_out(s, lease) then
		return {'0'}
	end
end
end_session(target, tonumber(ARGV[5]))
return {'1'}
