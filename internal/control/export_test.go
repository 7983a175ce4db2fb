package control

// For the tests, which stand outside of the package.
var (
	Choose    = choose
	Normalise = normalise
)
