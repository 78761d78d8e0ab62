//go:build tools

package main

import _ "github.com/cgrates/cgrates/cmd/cgr-engine"
