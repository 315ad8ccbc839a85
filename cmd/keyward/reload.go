package main

import (
	"errors"
)

// reload takes over what may change while the sidecar runs. A file that is not good changes nothing.
func (s *sidecarProcess) reload() {
	notify(daemonReloading())
	defer notify(daemonReady)
	next, restart, err := s.c.reload()
	if err == nil {
		err = s.apply(next)
	}
	if err != nil {
		s.log.Error().Err(err).Msg("the new configuration is not good; the old one stays")
		return
	}
	e := s.log.Info()
	if len(restart) > 0 {
		e = s.log.Warn().Strs("needs_restart", restart)
	}
	e.Msg("configuration read anew")
}

func (s *sidecarProcess) apply(next *Config) error {
	rules, err := next.compileRules(next.known(), s.proxy.Rules())
	if err != nil {
		return err
	}
	// What may be refused comes first; the last of it takes the one before back.
	if s.webhooks != nil {
		if err := s.webhooks.SetRoutes(next.webhookRoutes()); err != nil {
			return err
		}
	}
	if err := s.proxy.SetUpstreams(next.Upstreams); err != nil {
		if s.webhooks != nil {
			err = errors.Join(err, s.webhooks.SetRoutes(s.c.webhookRoutes()))
		}
		return err
	}
	s.proxy.SetRules(rules)
	s.proxy.SetLimits(s.limits(next))
	s.setStrict(next)
	setLogLevel(next.LogLevel)
	s.c = next
	return nil
}
