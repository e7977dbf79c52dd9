-- A lock: its owner waits no longer.
if stale() then
	return {'stale'}
end
local want = lock_at(3)
local o = object(want.id)
o.w = waits_no_more(o.w, want)
keep(want.id, o, sid)
return {'1'}
