package jobs

// NewPace makes a pace for tests.
var NewPace = newPace
