//! A ledger's books in SQLite: accounts, positions towards peers, and what each branch has changed.
//!
//! # Invariants
//! * Account, position and entry change in the caller's one transaction, so that each can be checked against
//!   the others whenever the process dies.
//! * Undoing takes back exactly what the branch's entries say, and leaves them as zeroes.
//! * Nothing here guards what the order of steps has to guarantee: a settlement before its debit, or a debit
//!   undone before its settlement, drives `pending` below zero, where the oracles see it.
//!
//! # Not here
//! Duplicates, late calls and stored answers: that is the barrier's. Who calls: `serve`.

use crate::wire::{Account, Booked, Booking, Books, Entry, Execution, Nostro};
use sqlx::{Row, SqliteConnection};

/// The tables.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account (
    id      INTEGER PRIMARY KEY,
    balance INTEGER NOT NULL,
    pending INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS nostro (
    peer     TEXT    NOT NULL PRIMARY KEY,
    sent     INTEGER NOT NULL,
    received INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
    saga     TEXT    NOT NULL,
    step     TEXT    NOT NULL,
    peer     TEXT    NOT NULL,
    account  INTEGER NOT NULL,
    balance  INTEGER NOT NULL,
    pending  INTEGER NOT NULL,
    sent     INTEGER NOT NULL,
    received INTEGER NOT NULL,
    PRIMARY KEY (saga, step, peer)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS execution (
    key   TEXT    NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What a branch does to a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posting {
    /// From balance to pending.
    Debit,
    /// From pending to the peers.
    Settle,
    /// From a peer to the balance.
    Credit,
}

/// What an amount changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Change {
    balance: i64,
    pending: i64,
    sent: i64,
    received: i64,
}

impl Posting {
    fn change(self, amount: i64) -> Change {
        let none = Change::default();
        match self {
            Self::Debit => Change { balance: -amount, pending: amount, ..none },
            Self::Settle => Change { pending: -amount, sent: amount, ..none },
            Self::Credit => Change { balance: amount, received: amount, ..none },
        }
    }
}

impl Change {
    fn negated(self) -> Self {
        Self { balance: -self.balance, pending: -self.pending, sent: -self.sent, received: -self.received }
    }
}

/// Why nothing was booked.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The business says no.
    Business(&'static str),
    /// The request makes no sense.
    Invalid(&'static str),
    /// The database could not.
    Storage(sqlx::Error),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Storage(error)
    }
}

/// Opens the accounts of an empty ledger.
pub(crate) async fn open(
    db: &mut SqliteConnection,
    accounts: u32,
    opening_balance: i64,
) -> Result<(), sqlx::Error> {
    let ids = "WITH RECURSIVE n(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id + 1 < ?) \
               INSERT INTO account SELECT id, ?, 0 FROM n WHERE NOT EXISTS (SELECT 1 FROM account)";
    sqlx::query(ids).bind(accounts).bind(opening_balance).execute(db).await.map(|_| ())
}

/// Books a branch.
pub(crate) async fn book(
    db: &mut SqliteConnection,
    posting: Posting,
    saga: &str,
    step: &str,
    booking: &Booking,
) -> Result<Booked, Refusal> {
    if booking.legs.is_empty() || booking.legs.iter().any(|leg| leg.amount <= 0 || leg.peer.is_empty()) {
        return Err(Refusal::Invalid("legs: each names a peer and a positive amount, and there is one"));
    }
    let total = booking.legs.iter().try_fold(0_i64, |sum, leg| sum.checked_add(leg.amount));
    let total = total.ok_or(Refusal::Invalid("legs: the sum is too large"))?;
    let found = sqlx::query("SELECT balance FROM account WHERE id = ?")
        .bind(booking.account)
        .fetch_optional(&mut *db)
        .await?;
    let balance: i64 = found.ok_or(Refusal::Business("no such account"))?.try_get(0)?;
    if posting == Posting::Debit && balance < total {
        return Err(Refusal::Business("insufficient funds"));
    }
    for leg in &booking.legs {
        let change = posting.change(leg.amount);
        enter(db, saga, step, &leg.peer, booking.account, change).await?;
        apply(db, &leg.peer, booking.account, change).await?;
    }
    booked(db, booking.account).await
}

/// Takes back what a branch has booked.
pub(crate) async fn undo(
    db: &mut SqliteConnection,
    saga: &str,
    step: &str,
    booking: &Booking,
) -> Result<Booked, Refusal> {
    let sql = "SELECT peer, account, balance, pending, sent, received FROM entry WHERE saga = ? AND step = ?";
    for row in sqlx::query(sql).bind(saga).bind(step).fetch_all(&mut *db).await? {
        let change = Change {
            balance: row.try_get("balance")?,
            pending: row.try_get("pending")?,
            sent: row.try_get("sent")?,
            received: row.try_get("received")?,
        };
        let peer: String = row.try_get("peer")?;
        // An undone credit may leave an account overdrawn: its owner has spent it, which is the bank's affair.
        apply(db, &peer, row.try_get("account")?, change.negated()).await?;
    }
    let sql = "UPDATE entry SET balance = 0, pending = 0, sent = 0, received = 0 WHERE saga = ? AND step = ?";
    sqlx::query(sql).bind(saga).bind(step).execute(&mut *db).await?;
    booked(db, booking.account).await
}

/// Counts a commit of a key's work. In the work's own transaction: what is rolled back does not count.
pub(crate) async fn count(db: &mut SqliteConnection, key: &str) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO execution VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET count = count + 1";
    sqlx::query(sql).bind(key).execute(db).await.map(|_| ())
}

async fn enter(
    db: &mut SqliteConnection,
    saga: &str,
    step: &str,
    peer: &str,
    account: u32,
    change: Change,
) -> Result<(), sqlx::Error> {
    // A second booking of one branch adds up instead of failing: the oracles are to see it.
    let sql = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (saga, step, peer) DO UPDATE SET \
               balance = balance + excluded.balance, pending = pending + excluded.pending, \
               sent = sent + excluded.sent, received = received + excluded.received";
    let query = sqlx::query(sql).bind(saga).bind(step).bind(peer).bind(account);
    let query = query.bind(change.balance).bind(change.pending).bind(change.sent).bind(change.received);
    query.execute(db).await.map(|_| ())
}

async fn apply(
    db: &mut SqliteConnection,
    peer: &str,
    account: u32,
    change: Change,
) -> Result<(), sqlx::Error> {
    if (change.balance, change.pending) != (0, 0) {
        let sql = "UPDATE account SET balance = balance + ?, pending = pending + ? WHERE id = ?";
        let query = sqlx::query(sql).bind(change.balance).bind(change.pending).bind(account);
        query.execute(&mut *db).await?;
    }
    if (change.sent, change.received) != (0, 0) {
        let sql = "INSERT INTO nostro VALUES (?, ?, ?) ON CONFLICT (peer) DO UPDATE SET \
                   sent = sent + excluded.sent, received = received + excluded.received";
        sqlx::query(sql).bind(peer).bind(change.sent).bind(change.received).execute(&mut *db).await?;
    }
    Ok(())
}

async fn booked(db: &mut SqliteConnection, account: u32) -> Result<Booked, Refusal> {
    let sql = "SELECT balance, pending FROM account WHERE id = ?";
    let row = sqlx::query(sql).bind(account).fetch_optional(db).await?;
    let row = row.ok_or(Refusal::Business("no such account"))?;
    Ok(Booked { balance: row.try_get(0)?, pending: row.try_get(1)? })
}

/// Everything that is in the books, as of one moment.
pub(crate) async fn read(db: &mut SqliteConnection) -> Result<Books, sqlx::Error> {
    let mut tx = sqlx::Connection::begin(db).await?;
    let mut books = Books::default();
    for row in sqlx::query("SELECT id, balance, pending FROM account ORDER BY id").fetch_all(&mut *tx).await?
    {
        let (id, balance, pending) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        books.accounts.push(Account { id, balance, pending });
    }
    for row in
        sqlx::query("SELECT peer, sent, received FROM nostro ORDER BY peer").fetch_all(&mut *tx).await?
    {
        let (peer, sent, received) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        books.nostros.push(Nostro { peer, sent, received });
    }
    let sql = "SELECT saga, step, peer, account, balance, pending, sent, received FROM entry \
               ORDER BY saga, step, peer";
    for row in sqlx::query(sql).fetch_all(&mut *tx).await? {
        books.entries.push(Entry {
            saga: row.try_get(0)?,
            step: row.try_get(1)?,
            peer: row.try_get(2)?,
            account: row.try_get(3)?,
            balance: row.try_get(4)?,
            pending: row.try_get(5)?,
            sent: row.try_get(6)?,
            received: row.try_get(7)?,
        });
    }
    for row in sqlx::query("SELECT key, count FROM execution ORDER BY key").fetch_all(&mut *tx).await? {
        books.executions.push(Execution { key: row.try_get(0)?, count: row.try_get(1)? });
    }
    tx.rollback().await?;
    Ok(books)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Leg;
    use sqlx::Connection;

    async fn ledger() -> SqliteConnection {
        let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql(SCHEMA).execute(&mut db).await.unwrap();
        open(&mut db, 3, 100).await.unwrap();
        open(&mut db, 3, 100).await.unwrap();
        db
    }

    fn booking(account: u32, amount: i64) -> Booking {
        Booking { account, legs: vec![Leg { peer: "b".to_owned(), amount }] }
    }

    #[tokio::test]
    async fn a_payment_goes_through_pending_and_comes_back_as_it_went() {
        let mut db = ledger().await;
        let sides = |booked: Booked| (booked.balance, booked.pending);
        let held = book(&mut db, Posting::Debit, "s", "debit", &booking(1, 30)).await.unwrap();
        assert_eq!(sides(held), (70, 30));
        let sent = book(&mut db, Posting::Settle, "s", "settle", &booking(1, 30)).await.unwrap();
        assert_eq!(sides(sent), (70, 0));
        assert_eq!(
            read(&mut db).await.unwrap().nostros,
            [Nostro { peer: "b".to_owned(), sent: 30, received: 0 }]
        );
        undo(&mut db, "s", "settle", &booking(1, 30)).await.unwrap();
        let back = undo(&mut db, "s", "debit", &booking(1, 30)).await.unwrap();
        assert_eq!(sides(back), (100, 0));
        let again = undo(&mut db, "s", "debit", &booking(1, 30)).await.unwrap();
        assert_eq!(sides(again), (100, 0));
        let books = read(&mut db).await.unwrap();
        assert!(books.entries.iter().all(|entry| (entry.balance, entry.pending, entry.sent) == (0, 0, 0)));
        assert_eq!(books.accounts.iter().map(|account| account.balance).sum::<i64>(), 300);
    }

    #[tokio::test]
    async fn a_wrong_order_shows_as_pending_below_zero() {
        let mut db = ledger().await;
        book(&mut db, Posting::Debit, "s", "debit", &booking(1, 30)).await.unwrap();
        book(&mut db, Posting::Settle, "s", "settle", &booking(1, 30)).await.unwrap();
        let early = undo(&mut db, "s", "debit", &booking(1, 30)).await.unwrap();
        assert_eq!(early.pending, -30);
    }

    #[tokio::test]
    async fn what_the_business_refuses_books_nothing() {
        let mut db = ledger().await;
        let poor = book(&mut db, Posting::Debit, "s", "debit", &booking(1, 101)).await;
        assert!(matches!(poor, Err(Refusal::Business("insufficient funds"))));
        let nobody = book(&mut db, Posting::Credit, "s", "credit", &booking(9, 1)).await;
        assert!(matches!(nobody, Err(Refusal::Business("no such account"))));
        let nothing = book(&mut db, Posting::Credit, "s", "credit", &booking(1, 0)).await;
        assert!(matches!(nothing, Err(Refusal::Invalid(_))));
        assert!(read(&mut db).await.unwrap().entries.is_empty());
    }
}
