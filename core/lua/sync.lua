-- object, locks...: on it the session holds these and no others; or none, when one cannot be had.
if stale() then
	return {'stale'}
end
local o = object(ARGV[3])
o.l = without(o.l, sid)
keep(ARGV[3], o, sid)
local lost = claim(4, sid)
o = object(ARGV[3])
if lost > 0 then
	o.l = without(o.l, sid)
	keep(ARGV[3], o, sid)
end
if #o.w > 0 then
	say('u ' .. ARGV[3])
end
return {text(lost)}
