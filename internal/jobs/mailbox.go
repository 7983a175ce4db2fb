package jobs

import (
	"context"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// mailboxesAtOnce bounds one round of looks.
const mailboxesAtOnce = 20

// lookAtMailboxes looks at the sample mailboxes that are due. What it sees
// proves nothing and holds up nothing: a look that fails is made again next time.
func (d *Driver) lookAtMailboxes(ctx context.Context) error {
	due, err := d.store.DueMailboxes(ctx, mailboxesAtOnce, d.cfg.Mailbox)
	if err != nil {
		return err
	}
	for _, w := range due {
		if err := d.lookAtMailbox(ctx, w); err != nil && ctx.Err() == nil {
			d.log.Warn("looking at a mailbox failed", "roll", w.RollID, "policy", w.PolicyID, "err", err)
		}
	}
	return nil
}

func (d *Driver) lookAtMailbox(ctx context.Context, w store.MailboxWatch) error {
	t, err := d.store.Tenant(ctx, w.TenantID)
	if err != nil {
		return err
	}
	via := t.Inventory.Reader(roll.Place(roll.Exchange, ""))
	if via == roll.ReadsNothing {
		return nil // nothing shows it; the roll has said so
	}
	m, err := d.tenants.Mail(t.Inventory, via)
	if err != nil {
		return err
	}
	seen, err := m.MailboxPolicyID(ctx, w.Mailbox)
	if err != nil {
		return err
	}
	return d.store.NoteMailbox(ctx, w, seen)
}
