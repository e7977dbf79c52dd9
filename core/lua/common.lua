-- Put before each of the other scripts. All keys begin with KEYS[1], which names the volume in braces.
--
--   g       hash: gen, run (of the server it began on), young, pause, beat (ms), grant, tip, turn, turn_until
--   s       hash: session -> who it is, until when (ms), what it has applied and pinned
--   l       hash: object -> its locks and who waits for them; and gen, so that it is missed when it is gone
--   h:ID    set: the objects on which session ID holds locks;  v:ID: for which it waits
--   q       list: sessions that want the turn
--   m       channel: "t TIP SESSION" the tip, and whose turn it is;  "u OBJECT" there may be room;
--             "y" the generation is young no longer
--
-- Numbers that may have 64 bits are texts of 20 digits, which compare as numbers do. Times are the server's own.
-- Each script begins ARGV with the caller's generation and session; what it returns is a list of texts.
local P = KEYS[1]
local G, S, L, Q = P .. 'g', P .. 's', P .. 'l', P .. 'q'
local gen, sid = ARGV[1], ARGV[2]
local ZERO = string.rep('0', 20)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function text(n)
	return string.format('%.0f', n)
end

local function say(message)
	redis.call('PUBLISH', P .. 'm', message)
end

-- A time to come that a change of the server's clock has put too far away.
local function until_of(field, most)
	return math.min(tonumber(redis.call('HGET', G, field) or 0), now + most)
end

local function session(id)
	local v = redis.call('HGET', S, id)
	return v and cmsgpack.unpack(v)
end

-- The generation, if all is there that belongs to it: a server may drop single keys for want of memory.
local function whole()
	local g = redis.call('HGET', G, 'gen')
	return g and redis.call('HGET', L, 'gen') == g and redis.call('EXISTS', S) == 1 and g
end

local function stale()
	return whole() ~= gen or redis.call('HEXISTS', S, sid) == 0
end

local function max_tip(tip)
	local old = redis.call('HGET', G, 'tip') or ZERO
	if tip <= old then
		return old, false
	end
	redis.call('HSET', G, 'tip', tip)
	return tip, true
end

-- ---- locks of an object: o.l held, o.w waiting; each {s, o, k, t, a, b, p}: session, owner, kind (f, p), type (r, w),
-- first and last byte, process ----

-- Of sessions that there are.
local function living(list)
	local left = {}
	for _, k in ipairs(list) do
		if redis.call('HEXISTS', S, k.s) == 1 then
			left[#left + 1] = k
		end
	end
	return left
end

local function object(id)
	local v = redis.call('HGET', L, id)
	if not v then
		return {l = {}, w = {}}
	end
	v = cmsgpack.unpack(v)
	return {l = living(v.l), w = living(v.w)}
end

local function has(list, id)
	for _, k in ipairs(list) do
		if k.s == id then
			return true
		end
	end
	return false
end

local function keep(id, o, of)
	if #o.l == 0 and #o.w == 0 then
		redis.call('HDEL', L, id)
	else
		redis.call('HSET', L, id, cmsgpack.pack(o))
	end
	redis.call(has(o.l, of) and 'SADD' or 'SREM', P .. 'h:' .. of, id)
	redis.call(has(o.w, of) and 'SADD' or 'SREM', P .. 'v:' .. of, id)
end

local function conflicts(k, want)
	return want.t ~= 'u' and k.k == want.k and not (k.s == want.s and k.o == want.o) and k.b >= want.a and
		k.a <= want.b and (k.t == 'w' or want.t == 'w')
end

-- The lock in the way that begins first.
local function blocked(o, want)
	local first
	for _, k in ipairs(o.l) do
		if conflicts(k, want) and (not first or k.a < first.a) then
			first = k
		end
	end
	return first
end

-- As fcntl(2): splits and joins. want.before and want.after are the bytes beside it, or ''.
local function put(o, want)
	local left = {}
	local mine = {s = want.s, o = want.o, k = want.k, t = want.t, a = want.a, b = want.b, p = want.p}
	for _, k in ipairs(o.l) do
		if k.s ~= want.s or k.o ~= want.o or k.k ~= want.k then
			left[#left + 1] = k
		elseif k.b < want.a or k.a > want.b then
			if k.t == want.t and k.b == want.before then
				mine.a = k.a
			elseif k.t == want.t and k.a == want.after then
				mine.b = k.b
			else
				left[#left + 1] = k
			end
		else
			local joins = k.t == want.t
			if k.a < want.a and joins then
				mine.a = k.a
			elseif k.a < want.a then
				left[#left + 1] = {s = k.s, o = k.o, k = k.k, t = k.t, a = k.a, b = want.before, p = k.p}
			end
			if k.b > want.b and joins then
				mine.b = k.b
			elseif k.b > want.b then
				left[#left + 1] = {s = k.s, o = k.o, k = k.k, t = k.t, a = want.after, b = k.b, p = k.p}
			end
		end
	end
	if want.t ~= 'u' then
		left[#left + 1] = mine
	end
	o.l = left
end

-- Without those of a session.
local function without(list, id)
	local left = {}
	for _, k in ipairs(list) do
		if k.s ~= id then
			left[#left + 1] = k
		end
	end
	return left
end

-- Of those who wait, without this one: an owner may wait for several, and asks for others meanwhile.
local function waits_no_more(list, want)
	local left = {}
	for _, k in ipairs(list) do
		if k.s ~= want.s or k.o ~= want.o or k.k ~= want.k or k.t ~= want.t or k.a ~= want.a or k.b ~= want.b then
			left[#left + 1] = k
		end
	end
	return left
end

-- Nine arguments from ARGV[i]: object, owner, kind, type, first, last, before, after, process.
local function lock_at(i)
	return {s = sid, id = ARGV[i], o = ARGV[i + 1], k = ARGV[i + 2], t = ARGV[i + 3], a = ARGV[i + 4], b = ARGV[i + 5],
		before = ARGV[i + 6], after = ARGV[i + 7], p = ARGV[i + 8]}
end

-- The locks from ARGV[i] on are held by session `id`, those that nobody else's are in the way of; how many were.
local function claim(i, id)
	local lost = 0
	while ARGV[i] do
		local want = lock_at(i)
		want.s = id
		local o = object(want.id)
		if blocked(o, want) then
			lost = lost + 1
		else
			put(o, want)
			keep(want.id, o, id)
		end
		i = i + 9
	end
	return lost
end

local function drop_locks(id)
	local held, waits = P .. 'h:' .. id, P .. 'v:' .. id
	for _, key in ipairs({waits, held}) do
		for _, oid in ipairs(redis.call('SMEMBERS', key)) do
			local o = object(oid)
			o.w = without(o.w, id)
			o.l = without(o.l, id)
			keep(oid, o, id)
			if key == held and #o.w > 0 then
				say('u ' .. oid)
			end
		end
	end
	redis.call('DEL', held, waits)
end

-- ---- turns ----

local function next_turn(hold)
	local turn = ''
	repeat
		turn = redis.call('LPOP', Q) or ''
	until turn == '' or redis.call('HEXISTS', S, turn) == 1
	redis.call('HSET', G, 'turn', turn, 'turn_until', text(now + hold))
	return turn
end

local function say_tip(tip, turn)
	say('t ' .. tip .. ' ' .. (turn == '' and '0' or turn))
end

local function end_session(id, hold)
	drop_locks(id)
	redis.call('HDEL', S, id)
	redis.call('LREM', Q, 0, id)
	if redis.call('HGET', G, 'turn') == id then
		say_tip(redis.call('HGET', G, 'tip') or ZERO, next_turn(hold))
	end
end

-- ---- leases ----

-- When nobody has renewed for a good part of a lease, or time went back, it was not the mounters who failed but the
-- server: all are given the time of a lease.
local function beat(lease)
	local last = tonumber(redis.call('HGET', G, 'beat') or now)
	if now < last or now - last > lease * 6 / 10 then
		redis.call('HSET', G, 'pause', text(now + lease))
		for _, id in ipairs(redis.call('HKEYS', S)) do
			local s = session(id)
			s.u = math.min(s.u, now + lease)
			redis.call('HSET', S, id, cmsgpack.pack(s))
		end
	end
	redis.call('HSET', G, 'beat', text(now))
end

local function run_out(s, lease)
	return s.u <= now and until_of('pause', lease) <= now
end

-- What nobody has come back to for a day goes: the volume may be no more.
local function outlive(id)
	for _, key in ipairs({G, S, L, Q, P .. 'h:' .. id, P .. 'v:' .. id}) do
		redis.call('EXPIRE', key, 86400)
	end
end
