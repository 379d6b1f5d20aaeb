%% Resolves the runtime configuration of an Elixir release as its boot would, keeps it on the node and puts what applies it
%% first into the relup: an install resets every environment to the one of the build. Nothing of it is told to anybody.
%% Given: Ebins, From, Relup, SysConfig, To.
Key = {deployex_hot_upgrade, To},
Find = fun(Module) ->
    File = atom_to_list(Module) ++ ".beam",
    case [It || Ebin <- Ebins, It <- [filename:join(Ebin, File)], filelib:is_regular(It)] of
        [It | _] -> It;
        [] -> none
    end
end,
%% Only what nobody runs: modules that the running release has not.
Load = fun(Module) ->
    case {code:is_loaded(Module), code:which(Module), Find(Module)} of
        {false, non_existing, File} when File =/= none ->
            element(1, code:load_abs(filename:rootname(File))) =:= module;
        _ -> false
    end
end,
Changed = fun(Module) ->
    case {code:is_loaded(Module), Find(Module)} of
        {{file, _}, File} when File =/= none ->
            beam_lib:md5(File) =/= {ok, {Module, Module:module_info(md5)}};
        _ -> false
    end
end,
%% What says no more than which variable or file is missing. Others may say what the configuration holds.
Plain = ['Elixir.RuntimeError', 'Elixir.System.EnvError', 'Elixir.ArgumentError', 'Elixir.UndefinedFunctionError',
         'Elixir.CompileError', 'Elixir.SyntaxError', 'Elixir.TokenMissingError', 'Elixir.File.Error', 'Elixir.Code.LoadError'],
Words = fun(Reason) ->
    case Reason of
        #{'__exception__' := true, '__struct__' := Struct} ->
            case lists:member(Struct, Plain) of
                true -> 'Elixir.Exception':message(Reason);
                false -> atom_to_binary(Struct)
            end;
        _ when is_atom(Reason) -> atom_to_binary(Reason);
        _ when is_tuple(Reason), is_atom(element(1, Reason)) -> atom_to_binary(element(1, Reason));
        _ -> <<"something else than an error">>
    end
end,
Resolve = fun Again(Config, Providers, Left) ->
    Missing = try
        {ok, lists:foldl(fun({Module, Argument}, Before) ->
            _ = Load(Module),
            case Module:load(Before, Argument) of
                After when is_list(After) -> After;
                _ -> throw({deployex, no_list})
            end
        end, Config, Providers)}
    catch
        throw:{deployex, no_list} -> {failed, <<"a configuration provider returned no list">>};
        error:undef:Stack ->
            case Stack of [{M, F, A, _} | _] -> {undefined, M, F, A}; _ -> {failed, <<"undef">>} end;
        error:#{'__struct__' := 'Elixir.UndefinedFunctionError', module := M, function := F, arity := A} when is_atom(M) ->
            {undefined, M, F, A};
        _:Why -> {failed, Words(Why)}
    end,
    case Missing of
        {undefined, Module, Function, Arity} ->
            case Left > 0 andalso Load(Module) of
                true -> Again(Config, Providers, Left - 1);
                false ->
                    Number = if is_list(Arity) -> length(Arity); true -> Arity end,
                    {failed, unicode:characters_to_binary(io_lib:format("~tp:~tp/~tp is not there", [Module, Function, Number]))}
            end;
        _ -> Missing
    end
end,
Hook = fun() ->
    Text = io_lib:format("application:set_env(persistent_term:get(~tp), [{persistent, true}]), persistent_term:erase(~tp).", [Key, Key]),
    {ok, Tokens, _} = erl_scan:string(lists:flatten(Text)),
    {ok, Forms} = erl_parse:parse_exprs(Tokens),
    {apply, {erl_eval, exprs, [Forms, []]}}
end,
Put = fun() ->
    case file:consult(Relup) of
        {ok, [{Version, Ups, Downs}]} ->
            First = Hook(),
            Hooked = [case Up of
                {From, Descr, [First | _]} -> {From, Descr, element(3, Up)};
                {From, Descr, Script} -> {From, Descr, [First | Script]};
                _ -> Up
            end || Up <- Ups],
            New = Relup ++ ".new",
            Bytes = unicode:characters_to_binary(io_lib:format("%% coding: utf-8~n~tp.~n", [{Version, Hooked, Downs}])),
            case file:write_file(New, Bytes) of
                ok -> file:rename(New, Relup);
                Failed -> Failed
            end;
        _ -> {error, no_relup}
    end
end,
case file:consult(SysConfig) of
    {ok, [Sys]} ->
        case proplists:get_value(config_provider_init, proplists:get_value(elixir, Sys, [])) of
            #{providers := [_ | _] = Providers} = Init ->
                case [It || {It, _} <- Providers, Changed(It)] of
                    [It | _] -> {changed, atom_to_binary(It)};
                    [] ->
                        Begin = case Init of
                            #{extra_config := [_ | _] = Extra} -> 'Elixir.Config.Reader':merge(Sys, Extra);
                            _ -> Sys
                        end,
                        case Resolve(Begin, Providers, 50) of
                            {ok, Config} ->
                                persistent_term:put(Key, Config),
                                case Put() of ok -> ok; {error, Why} -> {not_written, Why} end;
                            Failed -> Failed
                        end
                end;
            _ -> none
        end;
    _ -> no_sys_config
end.
