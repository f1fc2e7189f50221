"""headrace beside its peers: the same work by hand, by headrace and by each library that can do it."""
