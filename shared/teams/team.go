package teams

import "time"

// Team is what the directory says of a team. Its id is that of the group behind it; Entra
// gives no two objects one id, so a team is a custodian under a PersonID like a person.
type Team struct {
	ID          PersonID
	DisplayName string
}

// Deletion is when a person or a team was deleted from the directory.
type Deletion struct {
	ID PersonID
	At time.Time
}

// ExportableFor is how long after their deletion messages of people and teams can still
// be exported.
// https://learn.microsoft.com/microsoftteams/export-teams-content
const ExportableFor = 30 * 24 * time.Hour
