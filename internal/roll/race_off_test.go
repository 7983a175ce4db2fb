//go:build !race

package roll_test

const raceEnabled = false
