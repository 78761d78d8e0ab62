module mvnobox/bench/client

go 1.22
