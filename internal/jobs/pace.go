package jobs

import (
	"sync"
	"time"
)

// pace bounds how many things a process does in a second, and how close two of
// them on one host may follow each other. What was not used while nothing was
// due is not saved up for long.
type pace struct {
	rate  float64
	pause time.Duration

	mu     sync.Mutex
	tokens float64
	at     time.Time
	hosts  map[string]time.Time // the next free moment
}

// paceBurst is for how long unused turns are kept: as long as one slow vault
// may hold a round up.
const paceBurst = 20 * time.Second

func newPace(rate float64, pause time.Duration) *pace {
	return &pace{rate: rate, pause: pause, tokens: 1, hosts: map[string]time.Time{}}
}

// Take gives the turns that are free at now, at most limit; Give takes back
// those that were not needed.
func (p *pace) Take(now time.Time, limit int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.at.IsZero() {
		p.tokens += p.rate * now.Sub(p.at).Seconds()
	}
	p.at = now
	p.tokens = min(p.tokens, max(1, p.rate*paceBurst.Seconds()))
	n := min(int(p.tokens), limit)
	p.tokens -= float64(n)
	return n
}

// Give takes n turns back.
func (p *pace) Give(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens += float64(n)
}

// Next books the host's next free moment at or after now, and says how long
// that is away.
func (p *pace) Next(host string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.hosts[host]
	if at.Before(now) {
		at = now
	}
	p.hosts[host] = at.Add(p.pause)
	if len(p.hosts) > 1000 {
		for h, t := range p.hosts {
			if t.Before(now) {
				delete(p.hosts, h)
			}
		}
	}
	return at.Sub(now)
}
