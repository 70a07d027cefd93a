module deferpool.bench

go 1.21
