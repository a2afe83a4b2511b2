//! Looks at the upstream's own catalogue and puts what it finds in force; owns when a look counts, not what it sees.

use std::sync::Arc;

use super::shared::Shared;

/// How often a look is repeated where clients change views while it lasts; the next one is never far.
const LOOKS: usize = 3;

/// Looks for views over protected collections and default collations. While it cannot look, what was found before
/// stays in force, and the log says so.
pub async fn survey(shared: &Shared) {
    let live = Arc::clone(&shared.live());
    for _ in 0..LOOKS {
        let seen = shared.views_changed();
        let found = match live.catalogue.look(&live.fields).await {
            Ok(found) => found,
            Err(why) => return tracing::error!("{why}"),
        };
        let (views, collated) = (found.views.len(), found.collated.len());
        let refused: Vec<String> = found.refusals().map(str::to_owned).collect();
        match shared.set_found(found, seen) {
            // A client has changed a view meanwhile: what it did is in force, and this look may have missed it.
            None => continue,
            Some(true) if views + collated > 0 => tracing::warn!(
                views,
                collated,
                ?refused,
                "the database holds views over protected collections, or collections with a default collation: commands on the views listed are refused, and so are searches for sealed strings under such a collation"
            ),
            Some(_) => {}
        }
        return;
    }
}
