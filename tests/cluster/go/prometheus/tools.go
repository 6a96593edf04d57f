//go:build tools

// Package tools pins Prometheus and promtool, which are built from this module with
// `-tags remove_all_sd,enable_kubernetes_sd`: of the service discoveries only the one for Kubernetes.
package tools

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
