package proxy

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/valyala/fasthttp"
)

const (
	askLimit = 30 * time.Second // the longest that a question of ours may take; the asker's context may say less
	maxReply = 4 << 20          // bytes of an answer's body: a list of a hundred assistants, prompts and all
)

// Ask asks a provider something on Keyward's own account. It goes the way that callers' requests go: to no host but those of the
// provider's table, or where the operator's --upstream says, and with the secret where the provider looks for it. It has a connection of
// its own, which no caller's request ever uses. The question is used up: nothing secret of it is left in memory once it was sent, or could
// not be. The error is a *provider.NoAnswerError, an error of Inject, or of a question that is none.
func (p *Proxy) Ask(ctx context.Context, q *provider.Question) (provider.Reply, error) {
	reply, sent, err := p.ask(ctx, q)
	var bad *refusal
	if errors.As(err, &bad) {
		err = &provider.NoAnswerError{Code: bad.code, Detail: bad.detail, Sent: sent}
	}
	return reply, err
}

var errNoQuestion = errors.New("asking a provider: the question names no host of its provider, or holds a control character")

func (p *Proxy) ask(ctx context.Context, q *provider.Question) (r provider.Reply, sent bool, err error) {
	defer q.Wipe()
	host := q.Host
	if host == "" {
		host = q.Provider.DefaultHost(q.Secret)
	}
	u := p.at(bytesOf(host))
	if u == nil || u.provider != q.Provider {
		return r, false, errNoQuestion
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	conn, err := u.dial(ctx)
	if err != nil {
		return r, false, refusalFor(err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	p.stats.Exchanges.Add(1)
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	req, err := question(q, host)
	if err != nil {
		return r, false, err
	}
	_, err = conn.Write(req)
	clear(req)
	q.Wipe()
	if err != nil {
		return r, true, refusalOfEnd(err)
	}
	r, err = readWhole(conn.br)
	switch {
	case err == nil:
		return r, true, nil
	case ctx.Err() != nil, isTimeout(err):
		return r, true, refuseTimeout
	case errors.Is(err, fasthttp.ErrBodyTooLarge), errors.Is(err, errBadHead):
		return r, true, refuseProtocol
	}
	return r, true, refusalOfEnd(err)
}

// question is the whole request, in memory that its caller overwrites.
func question(q *provider.Question, host string) ([]byte, error) {
	room := 3*q.Secret.Len() + 3*len(q.Token) + 512 // percent-encoded or as base64 a secret is at most three times as long
	r := provider.Request{Method: []byte(q.Method), Host: host, Path: []byte(q.Path), Token: q.Token, Value: make([]byte, 0, room)}
	defer func() { clear(r.Value[:cap(r.Value)]) }()
	if !q.Secret.IsZero() {
		if err := q.Provider.Inject(&r, q.Secret); err != nil {
			return nil, err
		}
	}
	if hasControl(r.Value) || hasControl(r.Path) || hasControl([]byte(q.Type)) {
		return nil, errNoQuestion
	}
	b := make([]byte, 0, 512+len(r.Path)+len(host)+len(r.Value)+len(q.Type)+len(q.Body)) // never grows
	b = append(b, q.Method+" "...)
	b = append(b, r.Path...)
	b = append(b, " HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: keyward\r\nAccept: application/json\r\nAccept-Encoding: identity\r\nConnection: close\r\n"...)
	if q.Body != nil || q.Method == http.MethodPost {
		if q.Type != "" {
			b = append(b, "Content-Type: "+q.Type+"\r\n"...)
		}
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(q.Body)), 10), "\r\n"...)
	}
	if r.Header != "" {
		b = append(append(append(append(b, r.Header...), ": "...), r.Value...), "\r\n"...)
	}
	return append(append(b, "\r\n"...), q.Body...), nil
}

// readWhole reads an answer, and overwrites what the reader has kept of it.
func readWhole(br *bufio.Reader) (r provider.Reply, err error) {
	b, err := br.Peek(statusLine)
	if len(b) > 0 {
		defer clear(b[:cap(b)]) // the whole of its buffer: nothing has been taken out of it yet
	}
	if err != nil {
		return r, err
	}
	if !isStatusLine(b) {
		return r, errBadHead
	}
	var resp fasthttp.Response
	if err := resp.ReadLimitBody(br, maxReply); err != nil {
		return r, err
	}
	return provider.Reply{Status: resp.StatusCode(), RetryAfter: retryAfter(string(resp.Header.Peek("Retry-After"))), Body: resp.Body()}, nil
}

// retryAfter reads RFC 9110's two forms, seconds and a date; what is neither, or is over, is nothing.
func retryAfter(value string) time.Duration {
	const most = time.Hour
	if n, err := strconv.Atoi(value); err == nil {
		return min(max(time.Duration(min(n, int(most/time.Second)))*time.Second, 0), most)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), 0), most)
	}
	return 0
}
