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
	last time.Time // what Now returned last
	set  bool
}

// stepBack is how far Now may stand still rather than go back. A database
// whose clock is further behind has been set or has failed over, and then it
// is followed: to stand still that long would be worse.
const stepBack = 2 * time.Second

func newClock() *Clock {
	now := time.Now()
	return &Clock{base: now, at: now}
}

// Set takes the database's answer.
func (c *Clock) Set(db time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.set {
		c.last = time.Time{}
	}
	c.base, c.at, c.set = db, time.Now(), true
}

// Now is database time in UTC with microseconds, as PostgreSQL keeps it. It
// does not go back where an answer took longer than the one before.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.base.Add(time.Since(c.at)).UTC().Truncate(time.Microsecond)
	if now.Before(c.last) && c.last.Sub(now) <= stepBack {
		return c.last
	}
	c.last = now
	return now
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
