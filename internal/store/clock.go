package store

import (
	"sync"
	"time"
)

// Clock is database time, carried forward by this process's monotonic clock
// since the last answer of the database. Until the first answer it is the
// machine's own time.
type Clock struct {
	mu   sync.Mutex
	base time.Time // database time of the last answer
	at   time.Time // local reading, with its monotonic part
	set  bool
}

func newClock() *Clock {
	now := time.Now()
	return &Clock{base: now, at: now}
}

// Set takes the database's answer.
func (c *Clock) Set(db time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.at, c.set = db, time.Now(), true
}

// Now is database time in UTC with microseconds, as PostgreSQL keeps it.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base.Add(time.Since(c.at)).UTC().Truncate(time.Microsecond)
}

// Age is how long ago the database last answered; a process that has not heard
// from it for too long begins no effect.
func (c *Clock) Age() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.set {
		return time.Duration(1<<63 - 1)
	}
	return time.Since(c.at)
}
