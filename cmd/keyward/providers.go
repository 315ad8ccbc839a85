package main

import (
	"fmt"
	"slices"

	"github.com/keyward/keyward/provider"
)

// knownNames are the providers that have a file of their own: what the configuration is checked against.
func knownNames() Known { return knownOf(provider.All) }

func knownOf(all provider.Set) Known {
	k := Known{Providers: all.Names()}
	for _, p := range all {
		k.Hosts = append(k.Hosts, p.Hosts...)
		k.OwnHosts = append(k.OwnHosts, p.OwnHosts...)
	}
	return k
}

// with are those of k and some more.
func (k Known) with(more provider.Set) Known {
	if len(more) == 0 {
		return k
	}
	m := knownOf(more)
	return Known{slices.Concat(k.Providers, m.Providers), slices.Concat(k.Hosts, m.Hosts), k.OwnHosts}
}

// providers are all that this sidecar has: those with a file of their own, then those of the configuration.
func (c *Config) providers() provider.Set { return slices.Concat(provider.All, c.custom) }

// known is what rules of this configuration may name.
func (c *Config) known() Known { return knownOf(c.providers()) }

// makeProviders makes those of providers: in the file.
func (c *Config) makeProviders(p *problems) {
	c.custom = nil
	for i, spec := range c.Providers {
		custom := provider.Custom(spec)
		made, bad := custom.Make(c.providers())
		for _, e := range bad {
			p.addf("%s %s", c.flags.file.at(c.Config, fmt.Sprintf("providers[%d].%s", i, e.Field)), e.Problem)
		}
		if made != nil {
			c.custom = append(c.custom, made)
		}
	}
}

// titles are their names as people write them.
func titles(all provider.Set) map[string]string {
	m := map[string]string{}
	for _, p := range all {
		m[p.Name] = p.Title
	}
	return m
}
