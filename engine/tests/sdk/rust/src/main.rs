//! bollard and testcontainers, unchanged, against the engine at DOCKER_HOST.

use bollard::{
    Docker,
    container::LogOutput,
    errors::Error as Refused,
    exec::{CreateExecOptions, StartExecResults},
    models::{ContainerCreateBody, EventMessage},
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, EventsOptionsBuilder,
        InspectContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        StartContainerOptions, WaitContainerOptions,
    },
};
use futures_util::{StreamExt, TryStreamExt};
use std::{collections::HashMap, error::Error};
use testcontainers::{GenericImage, ImageExt, core::WaitFor, runners::AsyncRunner};
use tokio::io::AsyncWriteExt;

type Outcome = Result<(), Box<dyn Error>>;

fn body(command: &[&str]) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        labels: Some(HashMap::from([("sdk".to_owned(), "rs".to_owned())])),
        ..ContainerCreateBody::default()
    }
}

async fn create(
    docker: &Docker,
    name: &str,
    body: ContainerCreateBody,
) -> Result<String, Box<dyn Error>> {
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    Ok(docker.create_container(Some(options), body).await?.id)
}

async fn remove(docker: &Docker, id: &str) -> Outcome {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    Ok(docker.remove_container(id, Some(options)).await?)
}

async fn a_container_gives_its_logs_and_its_code(docker: &Docker) -> Outcome {
    let id = create(
        docker,
        "sdk-rs-a",
        body(&["sh", "-c", "echo out; sleep 0.2; echo err >&2; exit 6"]),
    )
    .await?;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    let mut wait = docker.wait_container(&id, None::<WaitContainerOptions>);
    let ended = wait.next().await.ok_or("nothing was waited for")?;
    let code = match ended {
        Ok(answer) => answer.status_code,
        Err(Refused::DockerContainerWaitError { code, .. }) => code,
        Err(error) => return Err(error.into()),
    };
    assert_eq!(code, 6);
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let lines: Vec<LogOutput> = docker.logs(&id, Some(options)).try_collect().await?;
    assert!(matches!(&lines[0], LogOutput::StdOut { message } if &message[..] == b"out\n"));
    assert!(matches!(&lines[1], LogOutput::StdErr { message } if &message[..] == b"err\n"));
    remove(docker, &id).await
}

async fn input_is_attached_and_comes_back(docker: &Docker) -> Outcome {
    let body =
        ContainerCreateBody { open_stdin: Some(true), stdin_once: Some(true), ..body(&["cat"]) };
    let id = create(docker, "sdk-rs-b", body).await?;
    let options =
        AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stream(true).build();
    let mut attached = docker.attach_container(&id, Some(options)).await?;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    attached.input.write_all(b"typed\n").await?;
    attached.input.shutdown().await?;
    let output: Vec<LogOutput> = attached.output.try_collect().await?;
    assert_eq!(output.iter().map(ToString::to_string).collect::<String>(), "typed\n");
    remove(docker, &id).await
}

async fn exec_gives_streams_and_a_code(docker: &Docker) -> Outcome {
    let id = create(docker, "sdk-rs-c", body(&["sleep", "1000"])).await?;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    let options = CreateExecOptions {
        cmd: Some(vec!["sh", "-c", "echo in; exit 2"]),
        attach_stdout: Some(true),
        ..CreateExecOptions::default()
    };
    let exec = docker.create_exec(&id, options).await?.id;
    let StartExecResults::Attached { output, .. } = docker.start_exec(&exec, None).await? else {
        return Err("the exec was not attached".into());
    };
    let output: Vec<LogOutput> = output.try_collect().await?;
    assert_eq!(output[0].to_string(), "in\n");
    assert_eq!(docker.inspect_exec(&exec).await?.exit_code, Some(2));
    remove(docker, &id).await
}

async fn events_flow(docker: &Docker) -> Outcome {
    let filters = HashMap::from([("container", vec!["sdk-rs-d"])]);
    let events = docker.events(Some(EventsOptionsBuilder::new().filters(&filters).build()));
    let made = async {
        let id = create(docker, "sdk-rs-d", body(&["true"])).await?;
        remove(docker, &id).await
    };
    let seen = events.take(2).try_collect::<Vec<EventMessage>>();
    // The stream is asked for first, and the engine answers it at once.
    let (seen, made) = tokio::join!(seen, made);
    made?;
    let actions: Vec<_> = seen?.into_iter().filter_map(|event| event.action).collect();
    assert_eq!(actions, ["create", "destroy"]);
    Ok(())
}

async fn testcontainers_waits_for_a_line_and_removes_what_it_made(docker: &Docker) -> Outcome {
    let image = GenericImage::new("busybox", "latest")
        .with_wait_for(WaitFor::message_on_stdout("is ready"));
    let container = image.with_cmd(["sh", "-c", "echo is ready; exec sleep 1000"]).start().await?;
    let id = container.id().to_owned();
    let options = None::<InspectContainerOptions>;
    let state = docker.inspect_container(&id, options.clone()).await?.state;
    assert_eq!(state.and_then(|state| state.running), Some(true));
    container.rm().await?;
    let gone = docker.inspect_container(&id, options).await;
    assert!(matches!(gone, Err(Refused::DockerResponseServerError { status_code: 404, .. })));
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let docker = Docker::connect_with_defaults()?.negotiate_version().await?;
    a_container_gives_its_logs_and_its_code(&docker).await?;
    println!("bollard: a container gives its logs and its code");
    input_is_attached_and_comes_back(&docker).await?;
    println!("bollard: input is attached and comes back");
    exec_gives_streams_and_a_code(&docker).await?;
    println!("bollard: exec gives streams and a code");
    events_flow(&docker).await?;
    println!("bollard: events flow");
    testcontainers_waits_for_a_line_and_removes_what_it_made(&docker).await?;
    println!("testcontainers: a line is waited for, and what was made is removed");
    Ok(())
}
