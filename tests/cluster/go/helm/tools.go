//go:build tools

// Package tools pins Helm: `go build helm.sh/helm/v4/cmd/helm` in this module builds exactly that version.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
