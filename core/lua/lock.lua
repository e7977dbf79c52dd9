-- lease, what ('set', 'test'), waits ('0', '1'), a lock.
if stale() then
	return {'stale'}
end
local lease, what, waits, want = tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1', lock_at(6)
local o = object(want.id)
local young = want.t ~= 'u' and until_of('young', lease) - now or 0

-- Does who stands in the way of w wait, over others or not, for the owner who asks? Beyond so many steps there is no
-- deadlock that could be told.
local steps = 1000
local function waits_for(w, on, depth)
	for _, k in ipairs(on.l) do
		if conflicts(k, w) then
			if k.s == want.s and k.o == want.o then
				return true
			end
			for _, oid in ipairs(redis.call('SMEMBERS', P .. 'v:' .. k.s)) do
				local other = object(oid)
				for _, x in ipairs(other.w) do
					steps = steps - 1
					if steps < 0 or depth == 0 then
						return false
					end
					if x.s == k.s and x.o == k.o and x.k == 'p' and waits_for(x, other, depth - 1) then
						return true
					end
				end
			end
		end
	end
	return false
end

local function held(word, k)
	return {word, k.s, k.o, k.k, k.t, k.a, k.b, k.p}
end

if what == 'test' then
	local by = blocked(o, want)
	if by then
		return held('held', by)
	end
	return young > 0 and {'young', text(young)} or {'ok', '0'}
end
if young > 0 then
	return {'young', text(young)}
end
o.w = waits_no_more(o.w, want)
local by = blocked(o, want)
if by then
	if waits then
		if want.k == 'p' and waits_for(want, o, 32) then
			keep(want.id, o, sid)
			return held('deadlock', by)
		end
		o.w[#o.w + 1] = {s = sid, o = want.o, k = want.k, t = want.t, a = want.a, b = want.b, p = want.p}
	end
	keep(want.id, o, sid)
	return held('held', by)
end
put(o, want)
keep(want.id, o, sid)
if want.t ~= 'w' and #o.w > 0 then
	say('u ' .. want.id)
end
return {'ok', want.t == 'u' and '0' or text(redis.call('HINCRBY', G, 'grant', 1))}
