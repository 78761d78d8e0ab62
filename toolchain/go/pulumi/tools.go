//go:build tools

// Package tools pins the Pulumi engine; the build takes its command straight from the module.
package tools

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
