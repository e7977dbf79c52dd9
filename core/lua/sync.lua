-- object, locks...: on it the session holds these and no others.
if stale() then
	return {'stale'}
end
local o = object(ARGV[3])
o.l = without(o.l, sid)
keep(ARGV[3], o, sid)
local lost = claim(4, sid)
o = object(ARGV[3])
if #o.w > 0 then
	say('u ' .. ARGV[3])
end
return {text(lost)}
