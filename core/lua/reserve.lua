-- hold: the tip, and whether the turn is here; if not, a message says when.
if stale() then
	return {'stale'}
end
local hold = tonumber(ARGV[3])
local turn = redis.call('HGET', G, 'turn')
local mine = '0'
if turn ~= '' and (until_of('turn_until', hold) <= now or redis.call('HEXISTS', S, turn) == 0) then
	turn = next_turn(hold)
	if turn ~= '' and turn ~= sid then
		say_tip(redis.call('HGET', G, 'tip') or ZERO, turn)
	end
end
redis.call('LREM', Q, 0, sid)
if turn == '' or turn == sid then
	redis.call('HSET', G, 'turn', sid, 'turn_until', text(now + hold))
	mine = '1'
else
	redis.call('RPUSH', Q, sid)
end
return {redis.call('HGET', G, 'tip') or ZERO, mine}
