module lab/bookinfo

go 1.26.0
