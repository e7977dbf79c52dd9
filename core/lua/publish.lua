-- tip, hold: that slot has been committed (0: none), and the turn goes on.
if stale() then
	return {'stale'}
end
local tip, news = max_tip(ARGV[3])
local turn = redis.call('HGET', G, 'turn')
redis.call('LREM', Q, 0, sid)
if turn == sid then
	turn = next_turn(tonumber(ARGV[4]))
	news = news or turn ~= ''
end
if news then
	say_tip(tip, turn)
end
return {'1'}
