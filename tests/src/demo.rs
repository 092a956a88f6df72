#[derive(clap::Args, Debug)]
pub struct DemoArgs {}
pub async fn run(_args: DemoArgs) -> anyhow::Result<()> {
    Ok(())
}
