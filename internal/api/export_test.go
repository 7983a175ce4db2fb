package api

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
	NextAction       = nextAction
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
