package sim

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Scenario is a world together with what goes wrong in it: the file format of
// "server sim --scenario". docs/simulator.md is its manual.
type Scenario struct {
	// Name is letters, digits and dashes, in lower case.
	Name string `json:"name"`
	// Description says what the scenario shows.
	Description string `json:"description"`
	// Expect says, for people, how the work of a good client ends in it.
	Expect string `json:"expect"`
	// Base is the name of a world that the simulator has: contoso. It or world is there.
	Base string `json:"base,omitempty"`
	// World is a world of the scenario's own.
	World *Seed `json:"world,omitempty"`
	// RandomSeed decides which requests a fault with a probability hits; it replaces that of the world.
	RandomSeed uint64 `json:"random_seed,omitempty"`
	// Speed is how many seconds pass in the world for each real one; 1 when left out.
	Speed float64 `json:"speed,omitempty"`
	// Faults are there from the beginning; at and after say when they begin to fire.
	Faults []Fault `json:"faults,omitempty"`
	// Acts are what people do by hand, and when.
	Acts []Act `json:"acts,omitempty"`
}

// Act is something done by hand at a time.
type Act struct {
	// At is seconds of the world's time after its beginning. The act happens
	// when somebody first looks at the world after that.
	At float64 `json:"at,omitempty"`
	// Do is the name of the act; the table of acts has them.
	Do string `json:"do"`
	// With is what the act needs, as in the body of the control API.
	With json.RawMessage `json:"with"`
}

// ReadScenario reads a scenario, refuses what it does not know, and plays the
// acts through on a world of their own. Errors are *FileError.
func ReadScenario(file string, text []byte) (Scenario, error) {
	d, err := parseDocument(file, text)
	if err != nil {
		return Scenario{}, err
	}
	var s Scenario
	if err := d.decode(&s); err != nil {
		return Scenario{}, err
	}
	for i, a := range s.Acts {
		kind, ok := actNamed(a.Do)
		if !ok {
			at := d.find(step("acts", i) + "/do")
			return Scenario{}, d.errorAt(at.start, fmt.Sprintf("unknown act %q: there are %s", a.Do, strings.Join(actNames(), ", ")))
		}
		with := d.root.step("acts").items[i].step("with")
		if with == nil {
			return Scenario{}, d.errorAt(d.find(step("acts", i)).start, "the act has no with: what act "+a.Do+" needs")
		}
		if err := d.fit(with, kind.body); err != nil {
			return Scenario{}, err
		}
	}
	if err := s.check(); err != nil {
		return Scenario{}, d.misfit(err)
	}
	return s, nil
}

// misfit puts an error of the world at its place in the file.
func (d *document) misfit(err error) error {
	inner, ok := errors.AsType[*MisfitError](err)
	if !ok {
		return d.errorAt(d.root.start, err.Error())
	}
	return d.errorAt(d.find(inner.Path).start, inner.Path+": "+inner.Err.Error())
}

var scenarioName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// check makes the scenario's world and does all its acts, in a time of its own.
func (s Scenario) check() error {
	switch {
	case !scenarioName.MatchString(s.Name):
		return misfit("name", fmt.Errorf("name %q is not lower-case letters, digits and dashes", s.Name))
	case s.Description == "":
		return misfit("description", errors.New("description is missing: say what the scenario shows"))
	case s.Expect == "":
		return misfit("expect", errors.New("expect is missing: say how a good client's work ends"))
	case s.Base == "" && s.World == nil:
		return errors.New("base or world is missing: base \"contoso\", or a world of the scenario's own")
	case s.Base != "" && s.World != nil:
		return misfit("base", errors.New("base and world are both there: one of them is enough"))
	case s.Base != "" && s.Base != "contoso":
		return misfit("base", fmt.Errorf("unknown base %q: there is contoso", s.Base))
	case s.Speed < 0 || s.Speed > 1e6:
		return misfit("speed", errors.New("speed is between 0 and 1000000"))
	}
	w, err := New(s.Seed())
	if err != nil {
		return misfit("world", err)
	}
	start := time.Now()
	w.Now = func() time.Time { return start }
	if err := s.addFaults(w); err != nil {
		return err
	}
	return s.rehearse(w)
}

// rehearse does the acts in their order.
func (s Scenario) rehearse(w *World) error {
	order := make([]int, len(s.Acts))
	for i, a := range s.Acts {
		if a.At < 0 || a.At > maxSeconds {
			return misfit(step("acts", i)+"/at", fmt.Errorf("at is seconds, between 0 and %d", maxSeconds))
		}
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(s.Acts[a].At, s.Acts[b].At) })
	var now float64
	for _, i := range order {
		a := s.Acts[i]
		w.Advance(seconds(a.At - now))
		now = a.At
		kind, _ := actNamed(a.Do) // by ReadScenario
		if kind.do == nil {
			return misfit(step("acts", i)+"/do", fmt.Errorf("unknown act %q", a.Do))
		}
		if err := kind.do(w, a.With); err != nil {
			return misfit(step("acts", i)+"/with", err)
		}
	}
	return nil
}

// Seed is the scenario's world at its beginning.
func (s Scenario) Seed() Seed {
	seed := Seed{}
	if s.World != nil {
		seed = *s.World
	} else {
		seed = ContosoSeed()
	}
	if s.RandomSeed != 0 {
		seed.RandomSeed = s.RandomSeed
	}
	return seed
}

// Play gives a world, of the scenario's seed, the scenario's faults, acts and
// speed. It belongs before the world's first request; acts at 0 are done at once.
func (s Scenario) Play(w *World) error {
	w.mu.Lock()
	w.speed = s.Speed
	for _, a := range s.Acts {
		kind, ok := actNamed(a.Do)
		if !ok {
			w.mu.Unlock()
			return fmt.Errorf("unknown act %q", a.Do)
		}
		w.schedule = append(w.schedule, scheduled{at: seconds(a.At), why: a.Do, do: func(w *World) error { return kind.do(w, a.With) }})
	}
	slices.SortStableFunc(w.schedule, func(a, b scheduled) int { return cmp.Compare(a.at, b.at) })
	w.mu.Unlock()
	err := s.addFaults(w)
	w.lock() // what is due at the beginning
	w.mu.Unlock()
	return err
}

func (s Scenario) addFaults(w *World) error {
	for i, f := range s.Faults {
		if _, err := w.AddFault(f); err != nil {
			return misfit(step("faults", i), err)
		}
	}
	return nil
}
