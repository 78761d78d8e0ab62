//go:build tools

// Package tools pins Helm; the build takes its command straight from the module.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
