package provider

import (
	"bytes"
	"encoding/json"
)

// A Probe finds out whether the provider honours a credential, by requests that cost nothing, change nothing and read next to nothing.
type Probe struct {
	// Paths are what is asked with GET at the default host, one after the other while an answer leaves something open.
	Paths func(s Secret) []string
	// Read reads one answer: its body first, since a status alone says little (see providers' errors at each Read). more: the next
	// path may say more.
	Read func(status int, body []byte) (v Verdict, more bool)
	// Samples are the provider's own answers, as its documentation has them or as they were seen: at least one for a good credential and one
	// for a bad one. Tests hold Read against them, and stand-ins answer with the first of a state.
	Samples []ProbeSample
}

// A ProbeSample is an answer to a Probe and what it means.
type ProbeSample struct {
	State  State
	Status int
	Body   string
}

// Sample is the first sample of that state; not ok if there is none.
func (p *Probe) Sample(state State) (s ProbeSample, ok bool) {
	for _, s := range p.Samples {
		if s.State == state {
			return s, true
		}
	}
	return ProbeSample{}, false
}

// A State is what is known of a credential.
type State string

// The states. Of Unproven nothing is known: the provider was down, busy, or said something that nobody foresaw.
const (
	Valid           State = "valid"
	ValidRestricted State = "valid_restricted" // honoured, but not for everything
	Invalid         State = "invalid"
	Unproven        State = "unproven"
)

// A Verdict is what a Probe found out. Reason is a sentence of ours, and holds nothing of the provider's answer: that may repeat a secret.
type Verdict struct {
	State  State
	Reason string // empty: there is nothing to say
	// Reconnect: only a new consent of the org mends it (an OAuth grant that was revoked or ran out).
	Reconnect bool
}

// Fold joins the verdicts of a Probe's paths, in their order.
func Fold(all []Verdict) Verdict {
	for i, v := range all {
		switch {
		case v.State == Valid && i > 0:
			return Verdict{State: ValidRestricted, Reason: all[0].Reason}
		case v.State == Valid, v.State == ValidRestricted:
			return v
		}
	}
	for _, v := range all {
		if v.State == Unproven {
			return v
		}
	}
	if len(all) == 0 {
		return Verdict{State: Unproven, Reason: "nothing was asked"}
	}
	return all[len(all)-1]
}

// onePath is the Paths of a probe that is one request.
func onePath(path string) func(Secret) []string {
	paths := []string{path}
	return func(Secret) []string { return paths }
}

// unproven is the verdict on an answer that says nothing about the credential.
func unproven(status int) Verdict {
	reason := "the provider's answer says nothing about the credential"
	switch {
	case status == 429:
		reason = "the provider limits requests now"
	case status >= 500:
		reason = "the provider has trouble now"
	}
	return Verdict{State: Unproven, Reason: reason}
}

// passing says whether a status is about the provider's day, whatever the body says.
func passing(status int) bool {
	return status == 429 || status == 408 || status >= 500
}

// isJSON says whether a body is one JSON value that begins with that byte: '{' or '['.
func isJSON(body []byte, first byte) bool {
	b := bytes.TrimLeft(body, " \t\r\n")
	return len(b) > 0 && b[0] == first && json.Valid(b)
}
