"""Real agents in network namespaces of their own, for `benches/versus`. Linux, Python 3.9 and msgpack."""
