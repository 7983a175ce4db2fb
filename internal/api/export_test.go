package api

import "github.com/keyroll/keyroll/internal/store"

// For the tests, which stand outside of the package.
var (
	WriteCursor      = writeCursor
	ReadCursor       = readCursor
	FormatETag       = formatETag
	ParseETag        = parseETag
	ReadPrecondition = readPrecondition
	ProblemOf        = problemOf
	NewProblem       = newProblem
	PageLimit        = pageLimit
	Fold             = fold
	ScanJSON         = scanJSON
	WhyKeep          = whyKeep
)

// Position is where a page ended.
type Position = position

// ProblemCodes lists the codes that the table of problems knows.
func ProblemCodes() []string {
	var out []string
	for _, row := range problemRows() {
		out = append(out, string(row.code))
	}
	return out
}

// Backlog is how many reads a watcher may be behind.
const Backlog = backlog

// Watcher is a stream as the hub feeds it.
type Watcher struct{ w *watcher }

// Open begins to watch.
func (h *Hub) Open(rollID string) (Watcher, error) {
	w, err := h.watch(rollID)
	return Watcher{w}, err
}

// Begun is closed when the hub feeds the watcher.
func (w Watcher) Begun() <-chan struct{} { return w.w.begun }

// Entries is what the hub gives it.
func (w Watcher) Entries() <-chan []store.RollEvent { return w.w.entries }
