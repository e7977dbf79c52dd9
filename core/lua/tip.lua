if stale() then
	return {'stale'}
end
return {redis.call('HGET', G, 'tip') or ZERO}
