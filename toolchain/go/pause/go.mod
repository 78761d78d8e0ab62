module mvno.box/toolchain/pause

go 1.24.0
