-- Nobody else can hold anything.
if stale() then
	return {'stale'}
end
redis.call('HSET', G, 'young', '0')
say('y')
return {'1'}
