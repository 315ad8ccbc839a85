// Package check holds the tests of what deploy/ has for Prometheus and Grafana. It is a module of its own: Prometheus, whose parser and engine
// they use, is larger than the program.
package check
