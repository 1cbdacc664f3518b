//! `docker import`: one archive becomes an image of one layer.

use super::{
    Image, ImageConfig, Images, Import, Platform, Progress, RunConfig, changes,
    config::{History, RootFs},
    layer::obtain,
};
use crate::{error::Error, ids::TenantName};
use std::{io::Read, sync::Arc};

pub(super) async fn import(
    images: Images,
    tenant: TenantName,
    archive: impl Read + Send + 'static,
    how: Import,
    progress: Progress,
) -> Result<Arc<Image>, Error> {
    let mut run = RunConfig::default();
    changes::apply(&mut run, &how.changes)?;
    if let Some(reference) = &how.reference
        && reference.digest().is_some()
    {
        return Err(Error::Invalid("cannot import digest reference".to_owned()));
    }
    let worker = images.clone();
    let complete = images.blocking(move || {
        let pin = obtain(&worker.0.store, archive, None, worker.0.limits)?;
        let platform = how.platform.unwrap_or_else(Platform::host);
        let created = Some(jiff::Timestamp::now().to_string());
        let comment = how.message.clone();
        let config = ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant.unwrap_or_default(),
            comment: how.message,
            created: created.clone(),
            config: run,
            history: vec![History { created, comment, ..History::default() }],
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![pin.digest()] },
            ..ImageConfig::default()
        };
        let raw = serde_json::to_string(&config)
            .map_err(|source| Error::internal("write the image's configuration", source))?;
        let names = how.reference.map(super::Reference::or_latest).into_iter().collect();
        Ok(worker.complete((raw, config), vec![pin], names, None))
    });
    let image = images.0.ledger.register(&tenant, complete.await?).await?;
    progress.status(image.id.to_string());
    Ok(image)
}
