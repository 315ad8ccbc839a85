package main

import "github.com/keyward/keyward/provider"

// providers are all that this sidecar has.
func (c *Config) providers() provider.Set { return provider.All }

// titles are their names as people write them.
func titles(all provider.Set) map[string]string {
	m := map[string]string{}
	for _, p := range all {
		m[p.Name] = p.Title
	}
	return m
}
