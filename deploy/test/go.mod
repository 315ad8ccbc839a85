// The tests of what is in deploy/, apart from the program's module: they need what reads Kubernetes' manifests.
module github.com/keyward/keyward/deploy/test

go 1.26.4

require (
	github.com/elastic/go-seccomp-bpf v1.6.0
	golang.org/x/sys v0.50.0
)

require (
	github.com/stretchr/testify v1.12.1 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/net v0.41.0 // indirect
)
