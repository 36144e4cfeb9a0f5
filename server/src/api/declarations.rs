//! `coffer.v1.References` and `coffer.v1.Manifests`.

use std::collections::{BTreeMap, BTreeSet};

use coffer_proto::{
    limits,
    name::{DeclarationKind, DeclarationName, ScopeKind, ScopePattern, VariableName},
    template,
    v1::{self, manifests_server::Manifests, references_server::References},
};
use tonic::{Request, Response, Status};

use super::{Api, convert::name, open, status};
use crate::{
    vault::{Error, NewDeclaration, Page, PageRequest, ShownDeclaration, fields::Fields},
    view::Declared,
};

#[tonic::async_trait]
impl References for Api {
    async fn set_reference(
        &self,
        request: Request<v1::SetReferenceRequest>,
    ) -> Result<Response<v1::Reference>, Status> {
        let (call, request) = open(request)?;
        let name = name("name", DeclarationName::parse_reference(&request.name))?;
        let shown = self.vault.set_declaration(&call, name, new_reference(request)).await.map_err(status::of)?;
        Ok(Response::new(to_reference(shown)))
    }

    async fn list_references(
        &self,
        request: Request<v1::ListReferencesRequest>,
    ) -> Result<Response<v1::ListReferencesResponse>, Status> {
        let (call, request) = open(request)?;
        let parent = name("parent", ScopePattern::parse(&request.parent))?;
        let page = PageRequest::new("ListReferences", &[parent.as_str()], request.page_size, &request.page_token);
        let page = self.vault.list_declarations(&call, DeclarationKind::Reference, parent, page).await;
        let Page { entries, next } = page.map_err(status::of)?;
        let references = entries.into_iter().map(to_reference).collect();
        Ok(Response::new(v1::ListReferencesResponse { references, next_page_token: next }))
    }

    async fn delete_reference(
        &self,
        request: Request<v1::DeleteReferenceRequest>,
    ) -> Result<Response<v1::DeleteReferenceResponse>, Status> {
        let (call, request) = open(request)?;
        let name = name("name", DeclarationName::parse_reference(&request.name))?;
        self.vault.delete_declaration(&call, name).await.map_err(status::of)?;
        Ok(Response::new(v1::DeleteReferenceResponse {}))
    }
}

#[tonic::async_trait]
impl Manifests for Api {
    async fn set_manifest(&self, request: Request<v1::SetManifestRequest>) -> Result<Response<v1::Manifest>, Status> {
        let (call, request) = open(request)?;
        let name = name("name", DeclarationName::parse_manifest(&request.name))?;
        let fields = new_manifest(name.pattern().kind(), request);
        let shown = self.vault.set_declaration(&call, name, fields).await.map_err(status::of)?;
        Ok(Response::new(to_manifest(shown)))
    }

    async fn list_manifests(
        &self,
        request: Request<v1::ListManifestsRequest>,
    ) -> Result<Response<v1::ListManifestsResponse>, Status> {
        let (call, request) = open(request)?;
        let parent = name("parent", ScopePattern::parse(&request.parent))?;
        let page = PageRequest::new("ListManifests", &[parent.as_str()], request.page_size, &request.page_token);
        let page = self.vault.list_declarations(&call, DeclarationKind::Manifest, parent, page).await;
        let Page { entries, next } = page.map_err(status::of)?;
        let manifests = entries.into_iter().map(to_manifest).collect();
        Ok(Response::new(v1::ListManifestsResponse { manifests, next_page_token: next }))
    }

    async fn delete_manifest(
        &self,
        request: Request<v1::DeleteManifestRequest>,
    ) -> Result<Response<v1::DeleteManifestResponse>, Status> {
        let (call, request) = open(request)?;
        let name = name("name", DeclarationName::parse_manifest(&request.name))?;
        self.vault.delete_declaration(&call, name).await.map_err(status::of)?;
        Ok(Response::new(v1::DeleteManifestResponse {}))
    }
}

/// The names in texts and lists. The texts go no further: people paste values into them.
fn new_reference(request: v1::SetReferenceRequest) -> Result<NewDeclaration, Error> {
    let mut fields = Fields::new();
    fields.description("description", &request.description);
    let mut used = BTreeSet::new();
    for (at, text) in request.variables.iter().enumerate() {
        used.extend(fields.take(&format!("variables[{at}]"), VariableName::parse(text)));
    }
    if request.texts.len() > limits::TEXTS {
        fields.wrong("texts", "must be at most 1,000");
    }
    used.extend(request.texts.iter().flat_map(|text| template::names(text)));
    if used.len() > limits::REFERENCE_VARIABLES {
        fields.wrong("variables", "must be at most 500, with those in texts");
    }
    fields.finish()?;
    if used.is_empty() {
        return Err(Error::field("variables", "must name at least one, or texts must"));
    }
    let plain = |variable| Declared { variable, required: false, description: String::new() };
    Ok(NewDeclaration { description: request.description, variables: used.into_iter().map(plain).collect() })
}

fn new_manifest(kind: ScopeKind, request: v1::SetManifestRequest) -> Result<NewDeclaration, Error> {
    let mut fields = Fields::new();
    if !kind.has_workloads() {
        fields.wrong("name", "an organization has no workloads of its own; name one of its workspaces, or all");
    }
    fields.description("description", &request.description);
    if request.variables.is_empty() {
        fields.wrong("variables", "must name at least one");
    }
    if request.variables.len() > limits::MANIFEST_VARIABLES {
        fields.wrong("variables", "must be at most 200");
    }
    let mut expected = BTreeMap::new();
    for (at, given) in request.variables.into_iter().take(limits::MANIFEST_VARIABLES).enumerate() {
        let field = |name: &str| format!("variables[{at}].{name}");
        if given.description.len() > limits::MANIFEST_VARIABLE_DESCRIPTION_BYTES {
            fields.wrong(field("description"), "must be at most 256 bytes");
        } else {
            fields.description(&field("description"), &given.description);
        }
        let Some(variable) = fields.variable(&field("variable"), &given.variable) else { continue };
        let declared = Declared { variable, required: given.required, description: given.description };
        if expected.insert(declared.variable.clone(), declared).is_some() {
            fields.wrong(field("variable"), "is there twice");
        }
    }
    fields.finish()?;
    Ok(NewDeclaration { description: request.description, variables: expected.into_values().collect() })
}

pub(super) fn to_reference(shown: ShownDeclaration) -> v1::Reference {
    v1::Reference {
        name: shown.name.to_string(),
        description: shown.description,
        variables: shown.variables.iter().map(|used| used.variable.to_string()).collect(),
        create_time: Some(shown.create_time),
        update_time: Some(shown.update_time),
        updater: shown.updater,
    }
}

pub(super) fn to_manifest(shown: ShownDeclaration) -> v1::Manifest {
    let variable = |declared: Declared| v1::ManifestVariable {
        variable: declared.variable.to_string(),
        required: declared.required,
        description: declared.description,
    };
    v1::Manifest {
        name: shown.name.to_string(),
        description: shown.description,
        variables: shown.variables.into_iter().map(variable).collect(),
        create_time: Some(shown.create_time),
        update_time: Some(shown.update_time),
        updater: shown.updater,
    }
}
